"""kill -9 and SIGTERM of the agent in the middle of a real dump and a real push."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from deploy.devnode.pods import Pod, Pods, PodSpec
from deploy.devnode.services import Agent
from deploy.devnode.world import Deployment

pytestmark = pytest.mark.node

HOG_MIB = "384"
Moment = Callable[[Agent, str], bool]


def until(condition: Callable[[], bool], timeout_s: float = 120.0) -> None:
    """Return when ``condition`` holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.005)


def step_is(step: str) -> Moment:
    """The journal says that this step is about to be taken."""

    def reached(agent: Agent, job_id: str) -> bool:
        entry = agent.node.host_path(f"/var/lib/snap/jobs/{job_id}.json")
        try:
            return f'"step":"{step}"' in entry.read_text()
        except FileNotFoundError:  # not begun, or over already
            return False

    return reached


def dump_runs(agent: Agent, job_id: str) -> bool:
    """The dump's script has begun."""
    return agent.node.host_path(f"/var/lib/snap/dumps/{job_id}/pid").exists()


def is_accepted(agent: Agent, job_id: str) -> bool:
    """The job is in the journal."""
    return agent.node.host_path(f"/var/lib/snap/jobs/{job_id}.json").exists()


@pytest.fixture
def agent(deployed: Deployment) -> Iterator[Agent]:
    """The agent of node 1; it runs again afterwards."""
    yield deployed.agents[1]
    if not deployed.agents[1].is_running:
        deployed.agents[1].start()
    deployed.wait_connected(1)


@pytest.fixture
def hog(pods1: Pods) -> Pod:
    """A container with memory to dump, which ticks."""
    pod = pods1.run(PodSpec(name="hog", image="hog", env={"HOG_MIB": HOG_MIB}))
    until(lambda: any(line.startswith("ready") for line in pod.lines()))
    return pod


def begin(deployed: Deployment) -> str:
    """Ask for a checkpoint and push; the job's id."""
    body = {"pod_name": "hog", "namespace": "default", "registry": "checkpoints"}
    status, answer = deployed.rest.call(
        "POST", "/checkpoint/kubelet/checkpoint-and-push?wait=false", body
    )
    assert status == 202, answer
    return str(answer["job_id"])


def ended(deployed: Deployment, job_id: str) -> dict[str, object]:
    """The job, when it has ended."""
    seen: dict[str, object] = {}

    def is_over() -> bool:
        answer = deployed.rest.call("GET", f"/jobs/{job_id}")[1]
        seen.update(answer.get("job", answer))
        return seen["status"] in {"completed", "failed", "cancelled"}

    until(is_over)
    return seen


def ticks_on(pod: Pod) -> None:
    """The container runs: it writes new lines."""
    before = len(pod.lines())
    until(lambda: len(pod.lines()) > before + 2)


def checkpoints(agent: Agent) -> int:
    """How many folders of parts are on the node, finished or not."""
    return len(list(agent.node.host_path("/var/lib/snap/checkpoints").iterdir()))


@pytest.mark.parametrize(
    "moment",
    [is_accepted, step_is("checkpoint/0"), dump_runs, step_is("push/0")],
    ids=["accepted", "before the dump", "in the dump", "in the push"],
)
def test_a_killed_agent_finishes_its_job_once(
    deployed: Deployment, agent: Agent, hog: Pod, moment: Moment
) -> None:
    before = checkpoints(agent)
    job_id = begin(deployed)
    until(lambda: moment(agent, job_id))
    agent.kill()
    agent.start()
    job = ended(deployed, job_id)
    assert job["status"] == "completed", job
    ticks_on(hog)
    assert checkpoints(agent) == before + 1
    until(lambda: not list(agent.node.host_path("/var/lib/snap/dumps").iterdir()))


@pytest.mark.parametrize(
    "moment", [dump_runs, step_is("push/0")], ids=["in the dump", "in the push"]
)
def test_sigterm_leaves_the_rest_of_a_job_to_the_next_agent(
    deployed: Deployment, agent: Agent, hog: Pod, moment: Moment
) -> None:
    job_id = begin(deployed)
    until(lambda: moment(agent, job_id))
    assert agent.stop(timeout_s=60) == 0
    ticks_on(hog)
    agent.start()
    assert ended(deployed, job_id)["status"] == "completed"


def test_a_cancelled_dump_leaves_the_container_running_and_nothing_behind(
    deployed: Deployment, agent: Agent, hog: Pod
) -> None:
    before = checkpoints(agent)
    job_id = begin(deployed)
    until(lambda: dump_runs(agent, job_id))
    deployed.rest.call("POST", f"/jobs/{job_id}/cancel", {})
    assert ended(deployed, job_id)["status"] == "cancelled"
    ticks_on(hog)
    until(lambda: checkpoints(agent) == before)
