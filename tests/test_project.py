"""The project's own shape: layers, data folders, README commands, what imports what."""

import ast
import graphlib
import itertools
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import REPOSITORY

# A room imports only from the rows above its own.
FLOORS = [
    ["errors", "version"],
    ["system"],
    ["data"],
    ["attention", "geometry"],
    ["models"],
    ["matching"],
    ["evaluation"],
    ["training"],
    ["export", "benchmark"],
    ["app"],
    ["commands"],
    ["__init__", "__main__"],
]
DATA_FLOORS = ["io", "sets", "finding", "augmentation", "synthetic", "check"]


def imports_of(path):
    """Give the parts of each name of ours that a file imports: ``("stereo", "data", "io")``."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (tuple(n.split(".")) for n in names if n.startswith("stereo."))


def test_rooms_import_only_from_the_floors_below():
    level = {name: i for i, names in enumerate(FLOORS) for name in names}
    for path in (REPOSITORY / "stereo").rglob("*.py"):
        module = path.relative_to(REPOSITORY / "stereo").parts[0].removesuffix(".py")
        assert module in level, f"{module} has no floor"
        if module.startswith("__"):
            continue
        for _, imported, *_ in imports_of(path):
            assert imported == module or level[imported] < level[module], f"{path}: {imported}"


def test_data_rooms_import_only_from_the_floors_below():
    level = {name: i for i, name in enumerate(DATA_FLOORS)}
    data = REPOSITORY / "stereo" / "data"
    found = set()
    for path in data.glob("*/**/*.py"):
        room = path.relative_to(data).parts[0]
        for _, module, *rest in imports_of(path):
            if module == "data" and level[rest[0]] > level[room]:
                found.add((path.relative_to(data).as_posix(), rest[0]))
    assert found == {("sets/datasets.py", "synthetic")}  # whose pairs are rendered on the spot


@pytest.mark.parametrize(
    "line", ["import stereo.app.page", "from stereo.app import page", "from stereo import app"]
)
def test_each_way_to_import_is_seen(tmp_path, line):
    (tmp_path / "a.py").write_text(line)
    assert [parts[:2] for parts in imports_of(tmp_path / "a.py")] == [("stereo", "app")]


def test_imports_are_acyclic():
    files = {}
    for path in (REPOSITORY / "stereo").rglob("*.py"):
        parts = path.relative_to(REPOSITORY).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    graph = {}
    for name, path in files.items():
        imported = set()
        for node in runtime_nodes(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                imported |= {name if name in files else node.module for name in names}
        graph[name] = (imported & files.keys()) - {name}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_files_and_functions_stay_short():
    for path in (REPOSITORY / "stereo").rglob("*.py"):
        text = path.read_text()
        assert len(text.splitlines()) <= 450, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = node.end_lineno - node.lineno + 1
                assert lines <= 80, f"{path}: {node.name}"


def runtime_nodes(tree):
    """Walk a module, functions included, without what only type checkers read."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            yield node
            yield from runtime_nodes(node)


@pytest.mark.parametrize("folder", ["datasets", "checkpoints", "scripts"])
def test_data_folders_are_never_packages(folder):
    found = {path.parent.name for path in (REPOSITORY / folder).rglob("__init__.py")}
    assert found <= {"stereo"}  # the one in scripts/editable


def test_dataclasses_that_hold_arrays_compare_by_identity():
    """Arrays have no one truth: compared field by field, two results would raise."""
    words, compared = {}, set()
    for path in (REPOSITORY / "stereo").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            decorators = [ast.unparse(d) for d in getattr(node, "decorator_list", [])]
            if not isinstance(node, ast.ClassDef) or not decorators[:1]:
                continue
            if decorators[0].startswith("dataclass"):
                types = [ast.unparse(n.annotation) for n in node.body if hasattr(n, "annotation")]
                held = " ".join(text for text in types if "Callable" not in text)
                words[node.name] = set(re.findall(r"\w+", held))
                compared |= set() if "eq=False" in decorators[0] else {node.name}
    arrays = {name for name, held in words.items() if held & {"ndarray", "Tensor"}}
    assert {"Result", "Sample", "Estimate", "TrainingPair"} <= arrays
    assert not arrays & compared


def test_the_top_level_holds_what_was_agreed():
    tracked = subprocess.check_output(["git", "ls-files"], cwd=REPOSITORY, text=True)
    folders = {path.split("/")[0] for path in tracked.split("\n") if "/" in path}
    code_and_data = {"stereo", "datasets", "scripts", "checkpoints", "tests"}
    assert folders == code_and_data | {"docs", ".ci", ".github"}


def test_a_clone_named_stereo_does_not_hide_the_package(tmp_path):
    clone = tmp_path / "stereo"
    for name in ("stereo", "scripts/editable"):
        shutil.copytree(REPOSITORY / name, clone / name, ignore=shutil.ignore_patterns("app"))
    (clone / "datasets").mkdir()
    dirs = re.search(
        r"^dev-mode-dirs = (\[.*\])$", (REPOSITORY / "pyproject.toml").read_text(), re.M
    )
    on_path = [str(clone / name) for name in ast.literal_eval(dirs[1])]  # by a .pth file
    code = (
        f"import sys; sys.path += {on_path}\n"
        "import importlib.util, stereo, stereo.errors\n"
        f"assert stereo.errors.__file__ == {str(clone / 'stereo' / 'errors.py')!r}\n"
        f"assert stereo.__file__ == {str(clone / 'stereo' / '__init__.py')!r}\n"
        "assert stereo.__spec__.origin == stereo.__file__\n"
        "assert 'load' in stereo.__all__\n"
        "assert importlib.util.find_spec('datasets') is None\n"
    )
    subprocess.run([sys.executable, "-S", "-c", code], check=True, cwd=tmp_path)


def clone_and_environment(folder):
    """A clone named stereo, and a fresh environment's Python with this one's packages at hand."""
    pytest.importorskip("hatchling")
    clone, venv = folder / "stereo", folder / "venv"
    subprocess.run(["git", "clone", "-q", "--depth", "1", REPOSITORY.as_uri(), clone], check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    python = venv / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    find = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    theirs = Path(subprocess.check_output(find, text=True).strip())
    shared = [path for path in sys.path if path.endswith("site-packages")]
    (theirs / "0_shared.pth").write_text("\n".join(shared))
    return clone, python


def install(python, *what):
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--no-index", *what], check=True)


@pytest.mark.slow
def test_a_clone_named_stereo_can_be_installed_and_used_from_its_parent(tmp_path):
    clone, python = clone_and_environment(tmp_path)
    install(python, "-e", clone)
    code = "import stereo; print(stereo.__file__, stereo.load)"
    said = subprocess.check_output([python, "-c", code], cwd=tmp_path, text=True)
    assert said.startswith(str(clone / "stereo" / "__init__.py"))
    help_text = subprocess.check_output([python, "-m", "stereo", "--help"], cwd=tmp_path, text=True)
    assert help_text.startswith("usage: stereo")
    missing = "import importlib.util as u; print(u.find_spec('checkpoints'), u.find_spec('docs'))"
    assert (
        subprocess.check_output([python, "-c", missing], cwd=clone.parent, text=True)
        == "None None\n"
    )


@pytest.mark.slow
def test_a_built_release_installs_and_runs_the_demo(tmp_path):
    clone, python = clone_and_environment(tmp_path)
    build = [sys.executable, "-m", "hatchling", "build", "-d", tmp_path / "dist"]
    subprocess.run(build, check=True, cwd=clone)
    shutil.rmtree(clone)
    (wheel,), (archive,) = ((tmp_path / "dist").glob(end) for end in ("*.whl", "*.tar.gz"))
    install(python, archive)
    find = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(subprocess.check_output([python, "-c", find], text=True).strip())
    installed = {path.relative_to(packages).as_posix() for path in packages.rglob("*")}
    assert set(zipfile.ZipFile(wheel).namelist()) <= installed
    code = "import stereo, stereo_bundled; print(stereo.__file__, *stereo_bundled.__path__)"
    said = subprocess.check_output([python, "-c", code], cwd=tmp_path, text=True)
    assert said.count(str(python.parent.parent)) == 2
    subprocess.run(
        [python.with_name("stereo"), "demo", "--output", "out"], check=True, cwd=tmp_path
    )
    assert (tmp_path / "out" / "metrics.json").is_file()


def test_one_file_imports_opencv_and_one_torchvision():
    for path in (REPOSITORY / "stereo").rglob("*.py"):
        names = re.findall(r"^\s*(?:import|from) (cv2|torchvision)\b", path.read_text(), re.M)
        allowed = {"opencv.py": {"cv2"}, "image_transforms.py": {"torchvision"}}
        assert set(names) <= allowed.get(path.name, set()), path


def test_scripts_import_stereo_before_pytorch():
    """So that the threads that wait sleep in them, too."""
    for path in (REPOSITORY / "scripts").glob("*.py"):
        text = path.read_text()
        ours, torch = (
            re.search(rf"^(?:import|from) {name}\b", text, re.M) for name in ("stereo", "torch")
        )
        assert not torch or (ours and ours.start() < torch.start()), path.name


def test_external_files_are_decoded_only_behind_the_limits():
    calls = r"Image\.open\(|cv2\.(?:imdecode|VideoCapture|FileStorage)\(|np\.load\("
    places = {
        path.relative_to(REPOSITORY / "stereo").as_posix()
        for path in (REPOSITORY / "stereo").rglob("*.py")
        if re.search(calls, path.read_text())
    }
    # The page shows its own pairs; an archive's maps have the size of an image that was read.
    readers = {"data/io/picture_file.py", "data/io/images.py", "data/io/videos.py"}
    assert places <= readers | {"app/page.py", "commands/submit.py"}


def test_only_training_code_loads_torchvision():
    code = (
        "import sys, stereo.commands.cli, stereo.data.augmentation.augment, stereo.commands.demo;"
        "import stereo.evaluation.evaluate, stereo.commands.infer;"
        "assert 'torchvision' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_readme_shows_the_two_commands_and_ci_runs_the_second():
    readme = (REPOSITORY / "README.md").read_text()
    assert "\n    pip install -e . && stereo demo" in readme
    assert '\n    pip install -e ".[dev]" && pytest' in readme
    assert r'pip install -e "\.\[dev\]" && pytest' in (REPOSITORY / ".ci" / "run").read_text()


def test_import_is_light_and_public_names_are_there():
    code = (
        "import sys, stereo; assert 'torch' not in sys.modules;"
        "assert all(hasattr(stereo, n) for n in stereo.__all__);"
        "assert stereo.attention.ATTENTIONS['efficient'];"
        "assert 'torchvision' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_missing_opencv_libraries_give_one_line_with_the_remedy(tmp_path):
    # A module that fails to import as the wheel does on a machine without libGL.
    code = """
import builtins, sys
real = builtins.__import__
def fail(name, *rest, **more):
    if name == "cv2":
        raise ImportError("libGL.so.1: cannot open shared object file")
    return real(name, *rest, **more)
builtins.__import__ = fail
from stereo.commands.cli import main
main(["demo", "--output", sys.argv[1]])
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "libGL.so.1" in done.stderr
    assert "apt-get install" in done.stderr


def test_links_between_documents_resolve():
    def anchor(heading):
        words = re.sub(r"[^\w\- ]", "", heading.strip("# `").lower())
        return words.replace(" ", "-")

    pages = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md"), *REPOSITORY.glob("*/*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            if re.match(r"\w+:", target):
                continue
            path, _, part = target.partition("#")
            found = (page.parent / path).resolve() if path else page
            assert found.exists(), f"{page.name}: {target}"
            if part:
                headings = re.findall(r"^#+ .*$", found.read_text(), re.M)
                assert part in map(anchor, headings), f"{page.name}: {target}"


def test_commits_that_documents_name_exist():
    def git(*words):
        call = ["git", "-C", str(REPOSITORY), *words]
        return subprocess.run(call, capture_output=True, text=True)

    if git("rev-parse", "--is-shallow-repository").stdout.strip() != "false":
        pytest.skip("not a whole clone, which alone has the commits")
    documents = [REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md")]
    named = {
        hash
        for path in documents
        for hash in re.findall(r"commits? ([0-9a-f]{7,40})\b", path.read_text())
    }
    assert len(named) > 5
    assert not [hash for hash in named if git("cat-file", "-e", f"{hash}^{{commit}}").returncode]


def test_contributing_names_paths_and_symbols_that_exist():
    text = (REPOSITORY / "CONTRIBUTING.md").read_text()
    paths = set(re.findall(r"`((?:stereo|tests|docs|scripts)/[\w/.-]+)`", text))
    assert [path for path in sorted(paths) if not (REPOSITORY / path).exists()] == []
    named = re.findall(r"((?:`\w+`(?:,| and)? )+)in\s+`(stereo/[\w/]+\.py)`", text)
    assert len(named) > 10
    for names, path in named:
        for name in re.findall(r"`(\w+)`", names):
            assert name in (REPOSITORY / path).read_text(), f"{name}: {path}"


def named_tests(path):
    """File and name of each test, which -k searches, and whether it is marked slow."""
    for file in [path] if path.is_file() else path.rglob("test_*.py"):
        for marks, name in re.findall(r"^((?:[@ )\]].*\n)*)def (test_\w+)", file.read_text(), re.M):
            yield f"{file.name} {name}", "@pytest.mark.slow" in marks.splitlines()


def test_each_pytest_command_in_documents_selects_a_test():
    pages = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")]
    commands = {c for page in pages for c in re.findall(r"`(pytest [^`]+)`", page.read_text())}
    assert len(commands) > 10
    for command in sorted(commands):
        words = shlex.split(command)[1:]
        options = dict(itertools.pairwise(words))
        paths = [REPOSITORY / word for word in words if word.startswith("tests")]
        runs = {"": (True, False), "slow": (True,)}.get(options.get("-m"), (False,))
        pattern = options.get("-k", "").replace(" or ", "|").replace("NAME", "")
        selected = (
            slow in runs and re.search(pattern, name)
            for path in paths or [REPOSITORY / "tests"]
            for name, slow in named_tests(path)
        )
        assert any(selected), command
