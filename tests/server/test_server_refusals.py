"""What objects of several kinds are refused for, in kube-apiserver's words."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_asyncio
from apis import Api, running

MERGE = {"Content-Type": "application/merge-patch+json"}
PODS = "/api/v1/namespaces/default/pods"
BUDGETS = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
ADDRESSES = "/apis/networking.k8s.io/v1/ipaddresses"
CRON_JOBS = "/apis/batch/v1/namespaces/default/cronjobs"
SETS = "/apis/apps/v1/namespaces/default/statefulsets"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory) -> Any:
    async with running(tmp_path_factory.mktemp("refusals")) as started:
        yield started


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def told(api: Api, method: str, path: str, body: Any, **more: Any) -> str:
    response = await api.request(method, f"{path}?dryRun=All", body, **more)
    assert response.status in (403, 422), response.body
    message: str = response.json["message"]
    return message.partition(" is forbidden: " if response.status == 403 else " is invalid: ")[2]


async def test_conditions_of_a_budget(api: Api) -> None:
    await api.create(BUDGETS, {"metadata": {"name": "b"}, "spec": {"minAvailable": 1}})
    patch = {"status": {"conditions": [{"type": "X", "status": "True"}]}}
    path = "status.conditions[0]"
    expected = f"[{path}.lastTransitionTime: Required value, {path}.reason: Required value]"
    assert await told(api, "PATCH", f"{BUDGETS}/b/status", patch, headers=MERGE) == expected


@pytest.mark.parametrize(("family", "address"), [("IPv4", "2001:db8::1"), ("IPv6", "1.2.3.4")])
async def test_an_address_of_another_family(api: Api, family: str, address: str) -> None:
    body = {"metadata": {"name": "e"}, "addressType": family, "endpoints": [{"addresses": [address]}]}
    expected = f'endpoints[0].addresses: Invalid value: "{address}": must be an {family} address'
    assert await told(api, "POST", SLICES, body) == expected


async def test_an_ip_address_that_loses_its_parent(api: Api) -> None:
    parent = {"resource": "services", "name": "a", "namespace": "x"}
    await api.create(ADDRESSES, {"metadata": {"name": "10.9.9.9"}, "spec": {"parentRef": parent}})
    expected = "[spec.parentRef: Required value, spec.parentRef: Invalid value: null: field is immutable]"
    assert await told(api, "PATCH", f"{ADDRESSES}/10.9.9.9", {"spec": None}, headers=MERGE) == expected


def template(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}], **spec}}


@pytest.mark.parametrize("schedule", ["TZ=0", "CRON_TZ="])
async def test_a_schedule_that_is_a_time_zone_only(api: Api, schedule: str) -> None:
    job = {"spec": {"template": template(restartPolicy="Never")}}
    body = {"metadata": {"name": "c"}, "spec": {"schedule": schedule, "jobTemplate": job}}
    assert await told(api, "POST", CRON_JOBS, body) == (
        f'[spec.schedule: Invalid value: "{schedule}": invalid schedule format: runtime error: slice bounds out of '
        f'range [:-1], spec.schedule: Invalid value: "{schedule}": cannot use TZ or CRON_TZ in schedule, use timeZone '
        "field instead]"
    )


async def test_host_names_in_the_template_of_a_stateful_set_are_not_looked_at(api: Api) -> None:
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template(hostname="A", subdomain="b.c")}
    made = await api.create(f"{SETS}?dryRun=All", {"metadata": {"name": "s"}, "spec": spec})
    assert made["spec"]["template"]["spec"]["hostname"] == "A"


async def test_each_fault_of_the_first_limit_range_that_is_not_kept(api: Api) -> None:
    await api.create("/api/v1/namespaces", {"metadata": {"name": "limited"}})
    path = "/api/v1/namespaces/limited"
    for name, kind in (("a", "Container"), ("b", "Pod")):
        limits = [{"type": kind, "max": {"cpu": "1"}}]
        await api.create(f"{path}/limitranges", {"metadata": {"name": name}, "spec": {"limits": limits}})
    containers = [{"name": name, "image": "i", "resources": {"limits": {"cpu": "2"}}} for name in "cd"]
    expected = "maximum cpu usage per Container is 1, but limit is 2"
    body = {"metadata": {"name": "p"}, "spec": {"containers": containers}}
    assert await told(api, "POST", f"{path}/pods", body) == expected
