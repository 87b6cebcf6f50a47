"""What a call of torch asks for: which operation on which operands, and what is done behind the product."""
