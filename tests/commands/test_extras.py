"""What the core needs is declared, and what it does not need may be missing."""

import ast
import re
import subprocess
import sys

import pytest
from conftest import REPOSITORY

from stereo.errors import StereoError
from stereo.system.extras import import_extra

DISTRIBUTIONS = {
    "docstring_parser": "docstring-parser",
    "PIL": "pillow",
    "cv2": "opencv-python",
    "yaml": "pyyaml",
    "huggingface_hub": "huggingface-hub",
}
EXTRAS = ("app", "benchmark", "export", "render", "zoo")
PARTIAL = {"triton"}  # comes with PyTorch where there is one
FRAMES = REPOSITORY / "datasets/samples/FlyingThings3D/frames_finalpass/TEST/A/0000"
PAIR = [FRAMES / side / "0006.png" for side in ("left", "right")]
BENCHMARK = ("--output", "b.json", "--repeats", 1)
SYNTHESIZE = ("data", "synthesize", "--root", "set", "--count", 1)
NEEDS = [
    ("gradio", "app", ("app", "--port", 0)),
    ("matplotlib", "benchmark", ("benchmark", "attention", *BENCHMARK)),
    ("matplotlib", "benchmark", ("benchmark", "inference", *BENCHMARK)),
    *(
        (name, "export", ("export", "ea_stereo_fast", "--output", "a.onnx"))
        for name in ("onnx", "onnxscript", "onnxruntime")
    ),
    ("onnx", "export", ("infer", *PAIR, "--model", "a.onnx", "--output", "out")),
    ("onnxruntime", "export", ("infer", *PAIR, "--model", "a.onnx", "--output", "out")),
    ("stereo_matching", "zoo", ("infer", *PAIR, "--model", "zoo:aanet", "--output", "out")),
    ("trimesh", "render", (*SYNTHESIZE, "--meshes", "meshes")),
    ("embreex", "render", (*SYNTHESIZE, "--meshes", "meshes")),
]


def declared(table):
    """The packages that a list of pyproject.toml names."""
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    block = re.search(rf"^{table} = (\[.*?\])$", text, re.M | re.S)[1]
    return {re.match(r"[\w-]+", each)[0].lower() for each in ast.literal_eval(block)}


def imported():
    """The packages of others that the code imports, by their names in an index."""
    for path in (REPOSITORY / "stereo").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            else:
                continue
            for name in (name.partition(".")[0] for name in names):
                if name not in {"stereo", *sys.stdlib_module_names, *PARTIAL}:
                    yield DISTRIBUTIONS.get(name, name)


def test_every_import_is_declared_and_every_dependency_is_imported():
    core, found = declared("dependencies"), set(imported())
    extras = set().union(*map(declared, EXTRAS))
    assert not core & extras
    assert found <= core | extras
    assert core - {"tensorboard"} <= found  # by way of torch.utils.tensorboard


@pytest.mark.parametrize(("missing", "extra", "call"), NEEDS)
def test_a_missing_package_is_one_line_with_the_pip_command(
    stereo, tmp_path, monkeypatch, missing, extra, call
):
    (tmp_path / "meshes").mkdir()
    (tmp_path / "meshes" / "face.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, missing, None)
    done = stereo(*call)
    assert (done.status, len(done.errors)) == (1, 1), done.errors
    assert f"needs the package {missing} " in done.errors[0]
    assert f"pip install -e '.[{extra}]'" in done.errors[0]
    assert [path.name for path in tmp_path.iterdir()] == ["meshes"]


@pytest.mark.slow
def test_the_commands_of_the_core_load_no_extra():
    extras = set().union(*map(declared, EXTRAS))
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({sorted(extras)!r}))\n"
        "import stereo.commands.demo, stereo.commands.infer, stereo.commands.submit\n"
        "import stereo.evaluation.evaluate, stereo.training.loop, stereo.training.prepare\n"
        "import stereo.data.synthetic.synthesize, stereo.data.check.check, stereo.geometry.check\n"
        "import stereo.commands.cli, stereo\n"
        "stereo.load('sgbm'), stereo.load()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_package_that_does_not_load_is_one_line_with_the_cause(tmp_path, monkeypatch):
    (tmp_path / "broken_extra.py").write_text("raise ImportError('libGL.so.1 is missing')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(StereoError, match=r"libGL\.so\.1 is missing.*pip install .*\[export\]"):
        import_extra("broken_extra", "export", "an .onnx file")
