"""The files of infra/deploy, by the tools and schemas of their readers: hadolint, Compose, kustomize, Kubernetes."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer.main
import yaml
from compose_spec import PyCompose
from typer.testing import CliRunner

from adapters.recipe import Recipe
from flows.cli.main import app
from flows.reconcile import job_variables
from infra.settings import Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "infra" / "deploy"
OVERLAYS = ("base", "in-cluster", "gpu")
IMAGES = {"adapter-factory", "adapter-factory:0.1.0", "postgres:17.6-bookworm", "chrislusf/seaweedfs:4.48"}
KUBERNETES = "1.32"


def hadolint(text: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("hadolint")
    return subprocess.run([program, "-"], input=text, capture_output=True, text=True, check=False)


def test_the_dockerfile_has_no_known_faults() -> None:
    text = (DEPLOY / "Dockerfile").read_text("utf-8")
    done = hadolint(text)
    assert (done.returncode, done.stdout) == (0, "")
    assert hadolint(text.replace("# hadolint ignore=DL3008\n", "")).returncode == 1
    assert re.findall(r"^USER (.+)$", text, flags=re.MULTILINE) == ["10001"]


def test_the_image_is_made_of_files_that_are_there() -> None:
    text = (DEPLOY / "Dockerfile").read_text("utf-8")
    copied = [word for line in re.findall(r"^COPY (?!--)(.+)$", text, flags=re.MULTILINE) for word in line.split()[:-1]]
    assert {"adapters", "registry", "flows", "infra", "pyproject.toml"} <= set(copied)
    assert [name for name in copied if not (ROOT / name).exists()] == []
    allowed = {line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"}
    assert {name.split("/")[0] for name in copied} == allowed


@cache
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8")))


def test_the_compose_file_is_one() -> None:
    plain = yaml.safe_dump(compose())
    PyCompose.from_yaml(plain)
    with pytest.raises(ValueError, match="imagge"):
        PyCompose.from_yaml(plain.replace("image: postgres", "imagge: postgres"))
    named = {name for service in compose()["services"].values() for name in service.get("depends_on", {})}
    assert named <= set(compose()["services"])
    mounts = [mount for service in compose()["services"].values() for mount in service.get("volumes", [])]
    for source in {mount.split(":")[0] for mount in mounts}:
        assert source in compose()["volumes"] or (DEPLOY / source).is_file(), source


def test_ports_of_compose_are_open_on_this_machine_alone() -> None:
    ports = [port for service in compose()["services"].values() for port in service.get("ports", [])]
    assert ports and all(port.startswith("127.0.0.1:") for port in ports)


def test_compose_asks_the_plan_while_it_builds() -> None:
    services = compose()["services"]
    workers = [set(one["command"]) for one in services.values() if one.get("command", [])[:2] == ["prefect", "worker"]]
    assert [{"--work-queue=plan", "--work-queue=builds"} & one for one in workers] == [
        {"--work-queue=plan"},
        {"--work-queue=builds"},
    ]
    assert all("--limit=1" in one for one in workers)


def test_posts_arrive_at_what_watches() -> None:
    watch = compose()["services"]["triggers"]
    assert watch["ports"] == ["127.0.0.1:8790:8790"] and "--listen=0.0.0.0:8790" in watch["command"]
    for name in ("triggers", "deploy"):
        assert {"FACTORY_TRIGGER_SECRET", "FACTORY_NOTIFY_URL"} <= compose()["services"][name]["environment"].keys()
    made = {(one["kind"], one["metadata"]["name"]): one["spec"] for one in manifests("base") if "spec" in one}
    (port,) = made["Service", "triggers"]["ports"]
    assert made["Service", "triggers"]["selector"] == {"app": "triggers"} and port["port"] == 8790
    (container,) = made["Deployment", "triggers"]["template"]["spec"]["containers"]
    assert container["ports"] == [{"name": port["targetPort"], "containerPort": 8790}]
    assert "--listen=0.0.0.0:8790" in container["command"]
    assert container["readinessProbe"]["httpGet"] == {"path": "/health", "port": port["targetPort"]}
    assert {"secretRef": {"name": "factory-secrets"}} in container["envFrom"]


def test_no_secret_is_in_a_file() -> None:
    text = "".join(path.read_text("utf-8") for path in DEPLOY.rglob("*") if path.is_file())
    values = re.findall(r"(?:PASSWORD|SECRET\w*|ACCESS_KEY\w*|AUTH\w*)[\"']?: [\"']?([^\s,}\"']+)", text)
    assert values and [value for value in values if not value.startswith(("${", "factory-secrets"))] == []


@cache
def manifests(overlay: str) -> list[dict[str, Any]]:
    """What kustomize makes of a folder."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl, which brings kustomize, is not installed")
    command = ["kubectl", "kustomize", str(DEPLOY / "kubernetes" / overlay)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def pods(overlay: str) -> list[dict[str, Any]]:
    """The pod of everything that makes pods, of the job templates too."""
    templates = [one["spec"]["template"]["spec"] for one in manifests(overlay) if "template" in one.get("spec", {})]
    return templates + [job["spec"]["template"]["spec"] for job in job_manifests(overlay)]


def job_manifests(overlay: str, asked: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """The manifests of job templates as Prefect's worker fills them in: with what is asked for, else the defaults."""
    found = []
    for one in manifests(overlay):
        if "template.json" in one.get("data", {}):
            template = json.loads(one["data"]["template.json"])
            values = {name: entry.get("default") for name, entry in template["variables"]["properties"].items()}
            values |= {"labels": {"flow": "retrain"}, "annotations": {}, "command": ["prefect", "flow-run", "execute"]}
            values |= asked or {}
            values["env"] = [{"name": "PREFECT__FLOW_RUN_ID", "value": "1"}]
            found.append(filled(template["job_configuration"]["job_manifest"], values))
    return found


def filled(node: Any, values: dict[str, Any]) -> Any:
    """A template with its `{{ name }}` replaced."""
    if isinstance(node, dict):
        return {key: filled(value, values) for key, value in node.items()}
    if isinstance(node, list):
        return [filled(value, values) for value in node]
    if isinstance(node, str):
        whole = re.fullmatch(r"\{\{ (\w+) \}\}", node)
        return values[whole[1]] if whole else re.sub(r"\{\{ (\w+) \}\}", lambda found: str(values[found[1]]), node)
    return node


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_manifests_are_what_kubernetes_takes(overlay: str) -> None:
    made = [*manifests(overlay), *job_manifests(overlay)]
    assert len(made) > 3
    for one in made:
        kubernetes_validate.validate(one, KUBERNETES, strict=True)
    wrong = json.loads(json.dumps(made[-1]).replace('"spec"', '"spek"', 1))
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_are_bounded_and_no_root(overlay: str) -> None:
    for pod in pods(overlay):
        assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] > 0
        for container in pod["containers"]:
            assert container["image"] in IMAGES
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert "memory" in container["resources"]["limits"]


def test_everything_that_is_named_is_there() -> None:
    made = manifests("in-cluster") + manifests("gpu")
    known = {(one["kind"], one["metadata"]["name"]) for one in made}
    named: set[tuple[str, str]] = set()
    for pod in pods("in-cluster") + pods("gpu"):
        named |= {("ServiceAccount", pod["serviceAccountName"])} if "serviceAccountName" in pod else set()
        for volume in pod.get("volumes", []):
            named |= {("ConfigMap", volume["configMap"]["name"])} if "configMap" in volume else set()
            claim = volume.get("persistentVolumeClaim")
            named |= {("PersistentVolumeClaim", claim["claimName"])} if claim else set()
        sources = [source for container in pod["containers"] for source in container.get("envFrom", [])]
        named |= {("ConfigMap", source["configMapRef"]["name"]) for source in sources if "configMapRef" in source}
    assert len(named) > 5 and named <= known


def test_the_job_templates_differ_in_their_gpu_alone() -> None:
    (plain,), (gpu,) = job_manifests("base"), job_manifests("gpu")
    pod, with_gpu = plain["spec"]["template"]["spec"], gpu["spec"]["template"]["spec"]
    assert with_gpu.pop("nodeSelector") and with_gpu.pop("tolerations")
    assert with_gpu["containers"][0]["resources"].pop("limits")["nvidia.com/gpu"] == "1"
    assert with_gpu["containers"][0]["envFrom"].pop() == {"configMapRef": {"name": "factory-gpu-settings"}}
    for one in (pod, with_gpu):
        one["containers"][0].pop("resources")
    assert pod == with_gpu


@pytest.mark.parametrize(("overlay", "gpus"), [("base", None), ("gpu", "4")])
def test_a_recipe_asks_for_its_resources(overlay: str, gpus: str | None) -> None:
    content = yaml.safe_load((ROOT / "adapters/features/writing/recipe.yaml").read_text("utf-8"))
    content |= {"resources": {"cpu": 6, "memory": "24Gi"}, "training": {"devices": 4}}
    content.pop("profiles", None)
    (job,) = job_manifests(overlay, job_variables(Recipe.model_validate(content)))
    kubernetes_validate.validate(job, KUBERNETES, strict=True)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["requests"] == {"cpu": "6", "memory": "24Gi"}
    assert container["resources"]["limits"]["memory"] == "24Gi"
    assert container["resources"]["limits"].get("nvidia.com/gpu") == gpus


def environment() -> dict[str, str]:
    """Every variable that the files set, with one of its values."""
    found: dict[str, str] = {}
    for service in compose()["services"].values():
        found |= service.get("environment", {})
    for line in (DEPLOY / "kubernetes/base/settings.env").read_text("utf-8").splitlines():
        found[line.partition("=")[0]] = line.partition("=")[2]
    return found


def test_settings_are_known() -> None:
    ours = {name.removeprefix("FACTORY_").lower() for name in environment() if name.startswith("FACTORY_")}
    assert {"ledger_url", "mlflow_uri", "prefect_api_url", "channel"} <= ours <= Settings.model_fields.keys()


def test_commands_of_the_factory_are_known() -> None:
    commands = [service.get("command") for service in compose()["services"].values()]
    commands += [container.get("command") for pod in pods("in-cluster") for container in pod["containers"]]
    ours = [command for command in commands if command and command[0] == "factory"]
    assert len(ours) == 3
    for command in ours:
        inner = typer.main.get_command(app).commands[command[1]]  # type: ignore[attr-defined]
        inner.make_context(command[1], command[2:])
    assert CliRunner().invoke(app, ["watch", "--evry=60s"]).exit_code == 2
