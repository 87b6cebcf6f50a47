"""The example notebook, run as Jupyter runs it: tune three shapes, plot, load, call."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

nbclient = pytest.importorskip("nbclient", reason="pip install nbclient ipykernel")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")
pytest.importorskip("plotly")
pytest.importorskip("ziglang")

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "tune_three_shapes.ipynb"


def outputs(cell: Any) -> dict[str, Any]:
    """What a cell displays, by its kind."""
    return {kind: text for output in cell.get("outputs", []) for kind, text in output.get("data", {}).items()}


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(tmp_path_factory.mktemp("notebook"))}}
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
        patched.setitem(os.environ, "IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
        client = nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources)
        client.execute()
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(cells: list[Any], begin: str) -> dict[str, Any]:
    """What the cell whose code begins so displays."""
    [cell] = [cell for cell in cells if cell.source.startswith(begin)]
    return outputs(cell)


def test_the_file_has_no_outputs() -> None:
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_a_run_shows_its_progress_and_its_result(cells: list[Any]) -> None:
    [cell] = [cell for cell in cells if cell.source.startswith("result = hktune.tune")]
    texts = ["".join(output.get("data", {}).get("text/html", "")) for output in cell.outputs]
    assert any("<progress" in text and "18/18 trials" in text for text in texts)
    assert any("3 of 3 shapes have a kernel" in text and "modelled" in text for text in texts)
    assert not [output for output in cell.outputs if output.output_type == "stream"], "nothing but these"


def test_pictures_are_plotly_s(cells: list[Any]) -> None:
    for call in ("search", "gain", "roofline"):
        figure = shown(cells, f"result.plot_{call}")["application/vnd.plotly.v1+json"]
        assert figure["data"]
        assert "modelled" in figure["layout"]["title"]["text"]


def test_what_was_tuned_is_served_and_is_torch_s_product(cells: list[Any]) -> None:
    assert "modelled: 3" in shown(cells, "table =")["text/plain"]
    assert float(shown(cells, "torch.manual_seed")["text/plain"]) < 2**-8
    assert shown(cells, "torch.equal")["text/plain"] == "True"
    assert "hits=3" in shown(cells, "model =")["text/plain"], "one call, and two layers of the model"
