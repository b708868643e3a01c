"""Generates the gRPC stubs from the repository's .proto files; everything else is in pyproject.toml."""

import pathlib
import re

from setuptools import setup

HERE = pathlib.Path(__file__).resolve().parent
PROTO = HERE.parent / "proto"
# Files that the client uses. Those that they import are generated, too.
FILES = ["catalog", "data", "error", "meta", "schema", "storage"]


def with_imports(names):
    """Returns the names of files and of all files that they import, sorted."""
    imports = re.compile(r'^import "tidewater/v1/(\w+)\.proto"', re.M)
    found, added = set(), set(names)
    while added:
        found |= added
        texts = [(PROTO / f"tidewater/v1/{name}.proto").read_text() for name in added]
        added = {name for text in texts for name in imports.findall(text)} - found
    return sorted(found)


def generate(target):
    """Writes flat modules such as data_pb2 and data_pb2_grpc."""
    import grpc_tools
    from grpc_tools import protoc

    if not PROTO.is_dir():
        raise SystemExit(f"{PROTO} is missing: install from a clone of the repository")
    target.mkdir(exist_ok=True)
    (target / "__init__.py").touch()
    include = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    sources = [f"tidewater/v1/{name}.proto" for name in with_imports(FILES)] + ["google/rpc/status.proto"]
    arguments = ["protoc", f"-I{PROTO}", f"-I{include}", f"--python_out={target}", f"--grpc_python_out={target}"]
    if protoc.main(arguments + sources) != 0:
        raise SystemExit("protoc failed")
    for path in sorted(target.rglob("*_pb2*.py")):
        # The generated imports are absolute; within a package they have to be relative.
        text = path.read_text()
        text = re.sub(r"^from (tidewater\.v1|google\.rpc) import", "from . import", text, flags=re.M)
        path.unlink()
        (target / path.name).write_text(text)


generate(HERE / "tidewater" / "_proto")
setup()
