"""The Kubernetes manifests fit the published schemas, each other, and the program that they start."""

import importlib.util
import re
import subprocess
from typing import Any

import pytest
import yaml

from app import container
from app.__main__ import COMMANDS
from app.arguments import page_parser
from app.gate import HEALTH_PATH
from app.saved_settings import SETTINGS_FOLDER
from tests.conftest import ROOT
from tests.nodes import manifests
from tests.nodes.manifests import JOB, PAGE, VOLCANO
from trainer.command import typed_values
from trainer.launch import DEFAULT_PORT, Launch
from trainer.settings import parse

# What the image sets, and where its one volume is to be mounted.
IMAGE = dict(re.findall(r"([A-Z_]+)=(/\S+)", (ROOT / "Dockerfile").read_text(encoding="utf-8")))
VOLUME = "/workspace"
LACKING = "" if importlib.util.find_spec("kubernetes_validate") else "kubernetes-validate is not installed"
# The oldest has the label that the Job's Service selects by.
VERSIONS = ("1.27", "1.30", "1.33", "latest")
DEVICES = "huawei.com/Ascend910"
# Read by what starts containers, not by the program.
OF_THE_RUNTIME = {"ASCEND_VISIBLE_DEVICES"}


@pytest.mark.slow
@pytest.mark.skipif(bool(LACKING), reason=f"NOT TESTED: {LACKING}")
@pytest.mark.parametrize("file", [PAGE, JOB])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_manifest_fits_the_published_schema(file: str, version: str) -> None:
    import kubernetes_validate

    wanted = kubernetes_validate.latest_version() if version == "latest" else version
    for document in manifests.documents(file):
        kubernetes_validate.validate(document, wanted, strict=True)


@pytest.mark.skipif(bool(LACKING), reason=f"NOT TESTED: {LACKING}")
def test_the_schema_refuses_what_is_misspelt() -> None:
    import kubernetes_validate

    deployment = manifests.one(PAGE, "Deployment")
    deployment["spec"]["template"]["spec"]["terminationGracePeriod"] = 30
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, VERSIONS[0], strict=True)


def test_every_key_of_a_manifest_is_written_once() -> None:
    class Strict(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [self.construct_object(key) for key, _ in node.value]
            assert len(keys) == len(set(keys)), (node.start_mark, keys)
            return super().construct_mapping(node, deep)

    for file in manifests.files():
        list(yaml.load_all(file.read_text(encoding="utf-8"), Strict))  # a SafeLoader
    assert {file.name for file in manifests.files()} == {PAGE, JOB, VOLCANO}


def test_the_page_is_started_probed_and_reached_as_it_can_be() -> None:
    [page] = manifests.pod(manifests.one(PAGE, "Deployment"))["containers"]
    command, *flags = page["args"]
    assert command in COMMANDS
    arguments = page_parser().parse_args(flags)
    assert (arguments.host, arguments.port) == ("0.0.0.0", page_parser().get_default("port"))
    [port] = page["ports"]
    assert port["containerPort"] == arguments.port
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert page[probe]["httpGet"] == {"path": HEALTH_PATH, "port": port["name"]}
    service = manifests.one(PAGE, "Service")["spec"]
    assert service["ports"] == [{"name": "page", "port": arguments.port, "targetPort": port["name"]}]
    deployment = manifests.one(PAGE, "Deployment")["spec"]
    assert service["selector"] == deployment["selector"]["matchLabels"] == deployment["template"]["metadata"]["labels"]
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})
    [token] = [one for one in page["env"] if one["name"] == "TUNEDESK_TOKEN"]
    assert token["valueFrom"]["secretKeyRef"]["optional"], "without a Secret it is in the log"


def test_what_lasts_lies_on_the_volume() -> None:
    for name in ("TUNEDESK_RUNS_DIR", "TUNEDESK_DATA_DIR", "HF_HOME", "MODELSCOPE_CACHE"):
        assert IMAGE[name].startswith(f"{VOLUME}/")
    grace_s = manifests.pod(manifests.one(PAGE, "Deployment"))["terminationGracePeriodSeconds"]
    assert grace_s > container.DEFAULT_GRACE_S, "the page says by itself what could not be saved"


@pytest.mark.parametrize(("file", "kind"), [(PAGE, "Deployment"), (JOB, "Job"), (VOLCANO, "Job")])
def test_no_pod_is_root_and_each_finds_what_it_mounts(file: str, kind: str) -> None:
    document = manifests.one(file, kind)
    found = manifests.pod(document)
    context = found["securityContext"]
    assert context["runAsNonRoot"]
    assert context["runAsUser"] == context["fsGroup"] == 1000
    assert found["terminationGracePeriodSeconds"] >= 300
    volumes = {volume["name"]: volume for volume in found["volumes"]}
    for one in manifests.containers(document):
        assert one["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert {mount["name"] for mount in one.get("volumeMounts", [])} <= volumes.keys()
        assert one["resources"]["limits"]["memory"] == one["resources"]["requests"]["memory"]
    mounted = {mount["name"]: mount["mountPath"] for mount in found["containers"][0]["volumeMounts"]}
    assert mounted.keys() == volumes.keys()
    assert (mounted["data"], mounted["shm"]) == (VOLUME, "/dev/shm")
    assert volumes["data"] == {"name": "data", "persistentVolumeClaim": {"claimName": "tunedesk"}}
    assert manifests.one(PAGE, "PersistentVolumeClaim")["metadata"]["name"] == "tunedesk"


def test_every_variable_of_a_manifest_is_one_that_the_program_reads() -> None:
    sources = "".join(path.read_text() for part in ("app", "trainer") for path in (ROOT / part).glob("*.py"))
    for file in manifests.files():
        text = file.read_text(encoding="utf-8")
        named = set(re.findall(r"name: ([A-Z][A-Z_]+)\b", text))
        assert named
        in_words = set(re.findall(r"\$\(?([A-Z_]+)\)?", text))
        for name in named - in_words - OF_THE_RUNTIME:
            assert f'"{name}"' in sources, (file.name, name)


@pytest.mark.parametrize("index", [0, 1])
def test_a_pod_of_the_job_trains_what_the_page_has_saved(index: int) -> None:
    words, environment = manifests.job_pod(index)
    launch = Launch.of(environment)
    assert (launch.nodes, launch.node_rank, launch.master_port) == (2, index, DEFAULT_PORT)
    assert words[0] == "train"
    file, *pairs = words[1:]
    values = typed_values(pairs)
    assert parse({"model_name_or_path": "m", "dataset": "d", **values}).resume_from_checkpoint is None
    runs = IMAGE["TUNEDESK_RUNS_DIR"]
    assert file == f"{runs}/{SETTINGS_FOLDER}/my-run.yaml"
    assert values["output_dir"] == f"{runs}/my-run"
    resumed, _ = manifests.job_pod(index, SETTINGS=f"{runs}/my-run/config.yaml", RESUME="latest")
    assert typed_values(resumed[2:])["resume_from_checkpoint"] == "latest"


def test_the_pods_of_the_job_find_the_first_one() -> None:
    job, service = manifests.one(JOB, "Job"), manifests.one(JOB, "Service")
    name, spec = job["metadata"]["name"], job["spec"]
    assert spec["completionMode"] == "Indexed"
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"]
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}
    assert manifests.pod(job)["subdomain"] == service["metadata"]["name"]
    for one in manifests.containers(job):
        environment = manifests.environment(one)
        assert environment["MASTER_ADDR"] == f"{name}-0.{service['metadata']['name']}"
        assert int(environment["NNODES"]) == spec["completions"] == spec["parallelism"]
    [trainer] = manifests.pod(job)["containers"]
    assert environment["NPROC_PER_NODE"] == trainer["resources"]["limits"][DEVICES]
    assert service["spec"]["ports"][0]["port"] == trainer["ports"][0]["containerPort"] == DEFAULT_PORT
    assert spec["backoffLimit"] == 0, "a pod that comes back alone would wait for the others"


def test_volcanos_job_says_the_same_as_the_indexed_one() -> None:
    job = manifests.one(VOLCANO, "Job")
    [task] = job["spec"]["tasks"]
    [node] = manifests.pod(job)["containers"]
    environment, (_, other) = manifests.environment(node), manifests.job_pod(0)
    name = f"{job['metadata']['name']}-{task['name']}-0.{job['metadata']['name']}"
    assert environment["MASTER_ADDR"] == name
    same = other.keys() - {"MASTER_ADDR", "NODE_RANK"}
    assert {key: environment[key] for key in same} == {key: other[key] for key in same}
    assert int(environment["NNODES"]) == job["spec"]["minAvailable"] == task["replicas"]
    assert environment["NPROC_PER_NODE"] == node["resources"]["limits"][DEVICES]
    for key in ("$SETTINGS", "$RUN", "$RESUME", "NODE_RANK=$VC_TASK_INDEX exec tunedesk train"):
        assert key in node["args"][-1]


def test_the_shell_lines_are_ones() -> None:
    lines = [one["args"][-1] for file, kind in ((JOB, "Job"), (VOLCANO, "Job"))
             for one in manifests.containers(manifests.one(file, kind)) if one["args"][0] == "sh"]  # fmt: skip
    assert len(lines) == 2
    for line in lines:
        subprocess.run(["sh", "-n"], input=line, text=True, check=True)


def test_both_readmes_say_the_same_commands_of_files_that_are_there() -> None:
    english, chinese = (manifests.commands(manifests.readme(name)) for name in ("README.md", "README.zh.md"))
    assert english == chinese
    applied = {word for line in english if " -f " in line for word in line.split() if word.endswith(".yaml")}
    assert applied == {f"assets/kubernetes/{file.name}" for file in manifests.files()}
