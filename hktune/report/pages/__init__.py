"""Reports as documents: HTML pages with pictures, and Markdown for a pull request."""
