"""The fake NPU, or a loud word that it could not be had."""

import subprocess
import warnings

import pytest

from tests.npu import fake
from tests.npu.fake import Fake


@pytest.fixture(scope="session")
def npu(tmp_path_factory: pytest.TempPathFactory) -> Fake:
    """Two NPUs, for whatever is started with `npu.environment()`."""
    if reason := fake.reason_not_to_build():
        warnings.warn(pytest.PytestWarning(f"NOT TESTED on an NPU, not even on a fake one: {reason}"), stacklevel=1)
        pytest.skip(f"NOT TESTED: {reason}")
    folder = tmp_path_factory.mktemp("npu")
    try:
        fake.install(folder / "site")
    except subprocess.CalledProcessError as error:
        pytest.fail(f"the fake NPU does not compile:\n{error.stderr[-3000:]}", pytrace=False)
    return Fake(folder / "site", folder / "notes")
