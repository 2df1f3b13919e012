"""What is refused of new and changed objects of the built-in kinds, in upstream's words."""

from typing import Any

import pytest
from clusters import JSON_PATCH, MERGE, Cluster, refused
from kinds import GOOD, changed, complaints, complaints_about_update, good

SEALED = "Forbidden: field is immutable when `immutable` is set"
FIXED = "field is immutable"
LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
BAD_IP = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
BAD_CIDR = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"

NESTED = "true"
for _variable in "abcde":
    NESTED = f"device.attributes.all({_variable}, {NESTED})"

NEW: list[tuple[str, dict[str, Any], list[str]]] = [
    # ---- what must be there is asked for alone
    ("runtimeclasses.node.k8s.io", {"handler": None}, ["handler: Required value"]),
    ("volumeattachments.storage.k8s.io", {"spec.attacher": None}, ["spec.attacher: Required value"]),
    ("csinodes.storage.k8s.io", {"spec.drivers.0.name": None}, ["spec.drivers[0].name: Required value"]),
    (
        "csinodes.storage.k8s.io",
        {"spec.drivers.0.topologyKeys": ["/x"]},
        ['spec.drivers[0]: Invalid value: "/x": prefix part must be non-empty'],
    ),
    (
        "ingressclasses.networking.k8s.io",
        {"spec.parameters": {"apiGroup": "g.h"}},
        ["spec.parameters.kind: Required value", "spec.parameters.name: Required value"],
    ),
    (
        "persistentvolumes",
        {"spec.capacity.storage": "-1"},
        [
            "spec.capacity[storage]: Invalid value: -1: must be a valid resource quantity",
            'spec.capacity[storage]: Invalid value: "-1": must be greater than zero',
        ],
    ),
    (
        "csidrivers.storage.k8s.io",
        {"spec.serviceAccountTokenInSecrets": True, "spec.tokenRequests": None},
        [
            "spec.serviceAccountTokenInSecrets: Invalid value: true: serviceAccountTokenInSecrets is set but no "
            "tokenRequests are specified"
        ],
    ),
    (
        "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io",
        {"metadata.annotations": {"flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares": ""}},
        [
            "metadata.annotations: Forbidden: annotation "
            "'flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares' is forbidden"
        ],
    ),
    # ---- lists stand as they came
    (
        "endpoints",
        {"subsets.0.addresses": [{"ip": "10.0.0.2"}, {}]},
        [
            f'subsets[0].addresses[1].ip: Invalid value: "": {BAD_IP}',
            'subsets[0].addresses[1].ip: Invalid value: "": must be a valid IP address',
        ],
    ),
    ("endpointslices.discovery.k8s.io", {"ports.0.port": 0}, []),
    # ---- Service
    ("services", {"spec.ports": None}, ["spec.ports: Required value"]),
    (
        "services",
        {"spec.ports.1": {"port": 81}},
        ["spec.ports[0].name: Required value", "spec.ports[1].name: Required value"],
    ),
    (
        "services",
        {"spec.ports": [{"port": 80, "name": "a"}, {"port": 80, "name": "b"}]},
        [
            'spec.ports[1]: Duplicate value: {"Name":"","Protocol":"TCP","AppProtocol":null,"Port":80,"TargetPort":0,'
            '"NodePort":0}'
        ],
    ),
    ("services", {"spec.ports.0.port": 70000}, [
        "spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive",
        "spec.ports[0].targetPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
    ]),
    (
        "services",
        {"spec.ports.0.protocol": "X"},
        ['spec.ports[0].protocol: Unsupported value: "X": supported values: "SCTP", "TCP", "UDP"'],
    ),
    (
        "services",
        {"spec.type": "Odd"},
        [
            'spec.type: Unsupported value: "Odd": supported values: "ClusterIP", "ExternalName", "LoadBalancer", '
            '"NodePort"'
        ],
    ),
    ("services", {"spec.type": "ExternalName"}, ["spec.externalName: Required value"]),
    (
        "services",
        {"spec.type": "NodePort", "spec.clusterIP": "None"},
        ["spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"],
    ),
    ("services", {"spec.clusterIP": "x"}, [f'spec.clusterIPs[0]: Invalid value: "x": {BAD_IP}']),
    (
        "services",
        {"spec.clusterIP": "10.96.0.9", "spec.clusterIPs": ["10.96.0.8"]},
        ['spec.clusterIPs: Invalid value: ["10.96.0.8"]: first value must match `clusterIP`'],
    ),
    (
        "services",
        {"spec.clusterIPs": ["10.96.0.8"]},
        ['spec.clusterIPs: Invalid value: ["10.96.0.8"]: must be empty when `clusterIP` is not specified'],
    ),
    (
        "services",
        {"spec.ipFamilies": ["IPv6"]},
        ['spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster'],
    ),
    (
        "services",
        {"spec.ipFamilyPolicy": "RequireDualStack"},
        [
            'spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack '
            "services"
        ],
    ),
    (
        "services",
        {"spec.clusterIP": "fd00::1"},
        ['spec.clusterIPs[0]: Invalid value: ["fd00::1"]: IPv6 is not configured on this cluster'],
    ),
    (
        "services",
        {"spec.sessionAffinity": "ClientIP", "spec.sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 90000}}},
        [
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 90000: must be greater than 0 and less "
            "than 86400"
        ],
    ),
    (
        "services",
        {"spec.externalTrafficPolicy": "Local"},
        [
            'spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible services'
        ],
    ),
    (
        "services",
        {"spec.loadBalancerSourceRanges": ["x"]},
        [
            "spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
            f'spec.LoadBalancerSourceRanges[0]: Invalid value: "x": {BAD_CIDR}',
        ],
    ),
    (
        "services",
        {"spec.externalIPs": ["127.0.0.1"]},
        ['spec.externalIPs[0]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)'],
    ),
    (
        "services",
        {"spec.trafficDistribution": "Odd"},
        [
            'spec.trafficDistribution: Unsupported value: "Odd": supported values: "PreferClose", "PreferSameZone", '
            '"PreferSameNode"'
        ],
    ),
    # ---- ConfigMap and Secret
    (
        "configmaps",
        {"binaryData": {"k": "dg=="}},
        ['data[k]: Invalid value: "k": duplicate of key present in binaryData'],
    ),
    ("configmaps", {"data": {"k": "é" * 600_000}}, ["[]: Too long: may not be more than 1048576 bytes"]),
    (
        "secrets",
        {"type": "kubernetes.io/basic-auth"},
        ["data[username]: Required value", "data[password]: Required value"],
    ),
    ("secrets", {"type": "kubernetes.io/ssh-auth"}, ["data[ssh-privatekey]: Required value"]),
    ("secrets", {"type": "kubernetes.io/tls"}, ["data[tls.crt]: Required value", "data[tls.key]: Required value"]),
    ("secrets", {"type": "kubernetes.io/dockerconfigjson"}, ["data[.dockerconfigjson]: Required value"]),
    (
        "secrets",
        {"type": "kubernetes.io/dockercfg", "data": {".dockercfg": "ew=="}},
        ['data[.dockercfg]: Invalid value: "<secret contents redacted>": unexpected end of JSON input'],
    ),
    # ---- Node, LimitRange, ResourceQuota
    (
        "nodes",
        {"spec.podCIDRs": ["10.1.0.0/24", "x"]},
        [
            f'spec.podCIDRs[1]: Invalid value: "x": {BAD_CIDR}',
            "spec.podCIDRs: Internal error: invalid PodCIDRs. failed to check with dual stack with error:invalid "
            "CIDR[1]: <nil> (invalid CIDR address: x)",
            'spec.podCIDRs: Invalid value: ["10.1.0.0/24","x"]: may specify no more than one CIDR for each IP family',
        ],
    ),
    (
        "limitranges",
        {"spec.limits.0.min": {"cpu": "3"}, "spec.limits.0.default": {"cpu": "2"}},
        [
            'spec.limits[0].min[cpu]: Invalid value: "3": min value 3 is greater than max value 2',
            'spec.limits[0].defaultRequest[cpu]: Invalid value: "2": min value 3 is greater than default request value '
            "2",
            'spec.limits[0].default[cpu]: Invalid value: "3": min value 3 is greater than default value 2',
        ],
    ),
    (
        "limitranges",
        {"spec.limits.0.maxLimitRequestRatio": {"cpu": "5"}},
        [
            'spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: "5": ratio 5 is greater than max/min = 2.000000'
        ],
    ),
    (
        "limitranges",
        {"spec.limits.0": {"type": "Pod", "default": {"cpu": "1"}}},
        ["spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'"],
    ),
    (
        "resourcequotas",
        {"spec.scopeSelector": {"matchExpressions": [{"scopeName": "Terminating", "operator": "In", "values": ["x"]}]}},
        [
            "spec.scopeSelector.matchExpressions.operator: Invalid value: \"In\": must be 'Exists' when scope is any "
            "of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, "
            "ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"
        ],
    ),
    # ---- Endpoints
    (
        "endpoints",
        {"subsets.0.addresses.0.ip": "x"},
        [
            f'subsets[0].addresses[0].ip: Invalid value: "x": {BAD_IP}',
            'subsets[0].addresses[0].ip: Invalid value: "x": must be a valid IP address',
        ],
    ),
    ("endpoints", {"subsets.0.ports.1": {"port": 81}}, [
        "subsets[0].ports[0].name: Required value", "subsets[0].ports[1].name: Required value",
    ]),
    (
        "endpointslices.discovery.k8s.io",
        {"endpoints.0.addresses": ["fd00::1"]},
        ['endpoints[0].addresses: Invalid value: "fd00::1": must be an IPv4 address'],
    ),
    (
        "endpointslices.discovery.k8s.io",
        {"addressType": "FQDN", "endpoints.0.addresses": ["host"]},
        [
            'endpoints[0].addresses[0]: Invalid value: "host": should be a domain with at least two segments separated '
            "by dots"
        ],
    ),
    # ---- volumes
    (
        "persistentvolumes",
        {"spec.volumeAttributesClassName": "x"},
        ["spec.csi: Required value: has to be specified when using volumeAttributesClassName"],
    ),
    (
        "persistentvolumes",
        {"metadata.annotations": {"volume.beta.kubernetes.io/mount-options": "x"}},
        [
            "metadata.annotations.volume.beta.kubernetes.io/mount-options: Forbidden: may not specify mount options "
            "for this volume type"
        ],
    ),
    (
        "volumeattachments.storage.k8s.io",
        {"spec.source": {}},
        ["spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName"],
    ),
    (
        "volumeattributesclasses.storage.k8s.io",
        {"parameters": None},
        ["parameters: Required value: must contain at least one key/value pair"],
    ),
    ("storageclasses.storage.k8s.io", {"provisioner": ""}, ["provisioner: Required value"]),
    (
        "storageclasses.storage.k8s.io",
        {"volumeBindingMode": "Odd"},
        ['volumeBindingMode: Unsupported value: "Odd": supported values: "Immediate", "WaitForFirstConsumer"'],
    ),
    (
        "csidrivers.storage.k8s.io",
        {"spec.nodeAllocatableUpdatePeriodSeconds": 5},
        [
            "spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 5: must be greater than or equal to 10 seconds"
        ],
    ),
    (
        "priorityclasses.scheduling.k8s.io",
        {"metadata.name": "system-cluster-critical", "value": 2_000_000_000, "globalDefault": True},
        [
            "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. "
            "error: globalDefault of system-cluster-critical PriorityClass must be false"
        ],
    ),
    (
        "runtimeclasses.node.k8s.io",
        {"handler": "H_", "overhead.podFixed": {"hugepages-2Mi": "2Mi", "odd": "1"}},
        [
            f'handler: Invalid value: "H_": {LABEL}',
            'overhead.limits[odd]: Invalid value: "odd": must be a standard resource type or fully qualified',
            'overhead.limits[odd]: Invalid value: "odd": must be a standard resource for containers',
            "overhead: Forbidden: HugePages require cpu or memory",
        ],
    ),
    # ---- networking
    (
        "ingresses.networking.k8s.io",
        {"spec.rules.0.http.paths.0.path": "/a/../b/."},
        [
            "spec.rules[0].http.paths[0].path: Invalid value: \"/a/../b/.\": must not contain '/../'",
            "spec.rules[0].http.paths[0].path: Invalid value: \"/a/../b/.\": cannot end with '/.'",
        ],
    ),
    ("ingresses.networking.k8s.io", {"spec.rules.0.http.paths": []}, ["spec.rules[0].http.paths: Required value"]),
    (
        "ingressclasses.networking.k8s.io",
        {"spec.controller": "x", "spec.parameters": {"kind": "K", "name": "n", "scope": "Namespace"}},
        [
            'spec.controller: Invalid value: "x": must be a domain-prefixed path (such as "acme.io/foo")',
            "spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'",
        ],
    ),
    (
        "networkpolicies.networking.k8s.io",
        {"spec.ingress.0.ports.0": {"port": "web", "endPort": 5}},
        [
            "spec.ingress[0].ports[0].endPort: Invalid value: 5: may not be specified when `port` is non-numeric"
        ],
    ),
    (
        "ipaddresses.networking.k8s.io",
        {"metadata.name": "10.0.0.01"},
        ['metadata.name: Invalid value: "10.0.0.01": must not have leading 0s'],
    ),
    ("ipaddresses.networking.k8s.io", {"spec": {}}, ["spec.parentRef: Required value"]),
    ("servicecidrs.networking.k8s.io", {"spec": {}}, ["spec.cidrs: Required value: at least one CIDR required"]),
    (
        "servicecidrs.networking.k8s.io",
        {"spec.cidrs": ["10.0.0.0/8", "11.0.0.0/8"]},
        [
            'spec.cidrs: Invalid value: ["10.0.0.0/8","11.0.0.0/8"]: may specify no more than one IP for each IP '
            "family, i.e 192.168.0.0/24 and 2001:db8::/64"
        ],
    ),
    # ---- RBAC
    (
        "roles.rbac.authorization.k8s.io",
        {"rules.0": {"verbs": [], "nonResourceURLs": ["/x"], "resources": ["pods"]}},
        [
            "rules[0].verbs: Required value: verbs must contain at least one value",
            'rules[0].nonResourceURLs: Invalid value: ["/x"]: namespaced rules cannot apply to non-resource URLs',
            'rules[0].nonResourceURLs: Invalid value: ["/x"]: rules cannot apply to both regular resources and '
            "non-resource URLs",
        ],
    ),
    (
        "clusterroles.rbac.authorization.k8s.io",
        {"aggregationRule": {}},
        [
            "aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if "
            "aggregationRule is non-nil"
        ],
    ),
    (
        "clusterrolebindings.rbac.authorization.k8s.io",
        {"subjects.0": {"kind": "ServiceAccount", "name": "x"}, "roleRef.kind": "Role"},
        [
            'roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole"',
            "subjects[0].namespace: Required value",
        ],
    ),
    # ---- flow control
    (
        "flowschemas.flowcontrol.apiserver.k8s.io",
        {"spec.matchingPrecedence": 1, "spec.rules.0.subjects.0": {"kind": "Group", "user": {"name": "u"}}},
        [
            "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1",
            "spec.rules[0].subjects[0].group: Required value: group is required when subject kind is 'Group'",
            "spec.rules[0].subjects[0].user: Forbidden: user is forbidden when subject kind is not 'User'",
        ],
    ),
    (
        "flowschemas.flowcontrol.apiserver.k8s.io",
        {"spec.rules.0.nonResourceRules.0.nonResourceURLs": ["a", "/a*"]},
        [
            'spec.rules[0].nonResourceRules[0].nonResourceURLs[0]: Invalid value: "a": must start with slash',
            'spec.rules[0].nonResourceRules[0].nonResourceURLs[1]: Invalid value: "/a*": wildcard can only do suffix '
            "matching",
        ],
    ),
    (
        "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io",
        {"spec.limited.limitResponse.queuing": {"queues": 1000, "handSize": 20}},
        [
            "spec.limited.limitResponse.queuing.handSize: Invalid value: 20: required entropy bits of deckSize 1000 "
            "and handSize 20 should not be greater than 60"
        ],
    ),
    # ---- dynamic resources
    (
        "deviceclasses.resource.k8s.io",
        {"spec.selectors.0.cel.expression": "1 + 1", "spec.extendedResourceName": "x"},
        [
            'spec.selectors[0].cel.expression: Invalid value: "1 + 1": must evaluate to bool or the unknown type, not '
            "int",
            'spec.extendedResourceName: Invalid value: "x": must be a valid extended resource name',
        ],
    ),
    (
        "deviceclasses.resource.k8s.io",
        {"spec.selectors.0.cel.expression": NESTED},
        ["spec.selectors[0].cel.expression: Forbidden: too complex, exceeds cost limit"],
    ),
    (
        "deviceclasses.resource.k8s.io",
        {"spec.selectors.0.cel.expression": "device.attributes['e.com'].model.matches('a.*') && device.driver != 'x'"},
        [],
    ),
    (
        "resourceclaims.resource.k8s.io",
        {
            "spec.devices.requests.0": {"name": "r", "firstAvailable": [{"name": "s", "deviceClassName": "c"}]},
            "spec.devices.constraints": [{"requests": ["r/t"], "matchAttribute": "e.com/x"}, {}],
            "spec.devices.config": [{"requests": ["r/s"], "opaque": {"driver": "e.com", "parameters": []}}],
        },
        [
            'spec.devices.constraints[0].requests[0]: Invalid value: "r/t": must be the name of a request in the claim '
            "or the name of a request and a subrequest separated by '/'",
            'spec.devices.constraints[1]: Required value: exactly one of "matchAttribute" or "distinctAttribute" is '
            "required, but multiple fields are set",
            'spec.devices.config[0].opaque.parameters: Invalid value: "<value omitted>": must be a valid JSON object',
        ],
    ),
    (
        "resourceclaimtemplates.resource.k8s.io",
        {"spec.metadata": {"name": "x"}},
        ["spec.metadata.name: Forbidden: cannot be set"],
    ),
    (
        "resourceslices.resource.k8s.io",
        {"spec.nodeName": None, "spec.devices.0.attributes": {"a/b/c": {}, "v": {"version": "1"}}},
        [
            "spec: Required value: exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is "
            "required",
            'spec.devices[0].attributes: Invalid value: "a/b/c": must not contain more than one slash',
            'spec.devices[0].attributes[a/b/c]: Invalid value: "": exactly one value must be specified',
            'spec.devices[0].attributes[v].version: Invalid value: "1": must be a string compatible with semver.org '
            "spec 2.0.0",
        ],
    ),
    (
        "resourceslices.resource.k8s.io",
        {
            "spec.devices.0.allowMultipleAllocations": True,
            "spec.devices.0.capacity.mem.requestPolicy": {"default": "3", "validRange": {"min": "2", "step": "2"}},
        },
        [
            "spec.devices[0].capacity[mem].requestPolicy.validRange.step: Invalid value: \"3\": value is not a "
            "multiple of a given step (2) from (2)"
        ],
    ),
    # ---- others
    (
        "leases.coordination.k8s.io",
        {"spec.leaseDurationSeconds": 0},
        ["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"],
    ),
    (
        "apiservices.apiregistration.k8s.io",
        {"spec.caBundle": "eHg="},
        ['spec.caBundle: Invalid value: "2 bytes": local APIServices may not have a caBundle'],
    ),
    (
        "events",
        {"involvedObject.namespace": "other"},
        ['involvedObject.namespace: Invalid value: "other": does not match event.namespace'],
    ),
]  # fmt: skip

CHANGED: list[tuple[str, dict[str, Any], dict[str, Any], list[str]]] = [
    # kind, changes of the old object, changes of the new one, complaints
    ("configmaps", {"immutable": True}, {"data": {}}, [f"data: {SEALED}"]),
    ("secrets", {"immutable": True}, {"immutable": False}, [f"immutable: {SEALED}"]),
    ("secrets", {}, {"type": "x"}, [f'type: Invalid value: "x": {FIXED}']),
    (
        "nodes",
        {},
        {"spec.podCIDRs": ["10.2.0.0/24"], "spec.podCIDR": None, "spec.providerID": "q"},
        [
            'spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid',
            'spec.providerID: Forbidden: node updates may not change providerID except from "" to valid',
        ],
    ),
    (
        "services",
        {"spec.type": "LoadBalancer"},
        {"spec.loadBalancerClass": "e.com/x"},
        ['spec.loadBalancerClass: Invalid value: "e.com/x": may not change once set'],
    ),
    (
        "services",
        {"spec.clusterIP": "10.96.7.7"},
        {"spec.clusterIP": "10.96.7.8"},
        ['spec.clusterIPs[0]: Invalid value: ["10.96.7.8"]: may not change once set'],
    ),
    (
        "endpointslices.discovery.k8s.io",
        {},
        {"addressType": "IPv6", "endpoints": []},
        [f'addressType: Invalid value: "IPv6": {FIXED}'],
    ),
    ("persistentvolumes", {}, {"spec.volumeMode": "Block"}, [f'volumeMode: Invalid value: "Block": {FIXED}']),
    (
        "persistentvolumeclaims",
        {"spec.volumeName": "v"},
        {"spec.volumeName": "w"},
        [
            "spec: Forbidden: spec is immutable after creation except resources.requests and "
            "volumeAttributesClassName for bound claims\n"
            '@@ -9,7 +9,7 @@\n    "storage": "1Gi"\n   }\n  },\n- "VolumeName": "v",\n+ "VolumeName": "w",\n'
            '  "StorageClassName": null,\n  "VolumeMode": "Filesystem",\n  "DataSource": null,\n'
        ],
    ),
    (
        "volumeattachments.storage.k8s.io",
        {},
        {"spec.nodeName": "m"},
        [
            'spec: Invalid value: {"Attacher":"e.com","Source":{"PersistentVolumeName":"v","InlineVolumeSpec":null},'
            f'"NodeName":"m"}}: {FIXED}'
        ],
    ),
    (
        "clusterrolebindings.rbac.authorization.k8s.io",
        {},
        {"roleRef.name": "s"},
        [
            'roleRef: Invalid value: {"APIGroup":"rbac.authorization.k8s.io","Kind":"ClusterRole","Name":"s"}: cannot '
            "change roleRef"
        ],
    ),
    (
        "ingressclasses.networking.k8s.io",
        {},
        {"spec.controller": "e.com/d"},
        [f'spec.controller: Invalid value: "e.com/d": {FIXED}'],
    ),
    (
        "servicecidrs.networking.k8s.io",
        {},
        {"spec.cidrs": ["10.201.0.0/24"]},
        [f'spec.cidrs[0]: Invalid value: "10.201.0.0/24": {FIXED}'],
    ),
    (
        "ipaddresses.networking.k8s.io",
        {},
        {"spec.parentRef.name": "t"},
        [
            'spec.parentRef: Invalid value: {"Group":"","Resource":"services","Namespace":"default","Name":"t"}: '
            f"{FIXED}"
        ],
    ),
    (
        "resourceclaims.resource.k8s.io",
        {},
        {"spec.devices.requests.0.exactly.count": 2},
        [
            'spec: Invalid value: {"Devices":{"Requests":[{"Name":"r","Exactly":{"DeviceClassName":"c",'
            '"Selectors":null,"AllocationMode":"ExactCount","Count":2,"AdminAccess":null,"Tolerations":null,"Capacity":null},'
            f'"FirstAvailable":null}}],"Constraints":null,"Config":null}}}}: {FIXED}'
        ],
    ),
    (
        "resourceslices.resource.k8s.io",
        {},
        {"spec.driver": "o.e.com"},
        [f'spec.driver: Invalid value: "o.e.com": {FIXED}'],
    ),
    ("runtimeclasses.node.k8s.io", {}, {"handler": "i"}, [f'handler: Invalid value: "i": {FIXED}']),
]


@pytest.mark.parametrize("resource", GOOD)
async def test_a_good_object_is_taken_and_its_update_too(cluster: Cluster, resource: str):
    assert await complaints_about_update(cluster, resource, {}, {"metadata.labels": {"a": "b"}}) == []


@pytest.mark.parametrize(
    ("resource", "changes", "told"), NEW, ids=lambda value: value if isinstance(value, str) else ""
)
async def test_a_bad_object_is_refused(cluster: Cluster, resource: str, changes: dict, told: list[str]):
    assert await complaints(cluster, resource, dict(changes)) == told


@pytest.mark.parametrize(
    ("resource", "before", "changes", "told"), CHANGED, ids=lambda value: value if isinstance(value, str) else ""
)
async def test_a_bad_change_is_refused(cluster: Cluster, resource: str, before: dict, changes: dict, told: list[str]):
    assert await complaints_about_update(cluster, resource, before, changes) == told


@pytest.mark.parametrize(
    ("resource", "labels", "finalizers"),
    [
        ("configmaps", 4, 4),
        ("services", 3, 2),
        ("limitranges", 3, 3),
        ("runtimeclasses.node.k8s.io", 4, 2),
        ("leases.coordination.k8s.io", 3, 1),
        ("events", 2, 1),
    ],
)
async def test_changed_metadata_is_looked_at_as_often_as_upstream_does(
    cluster: Cluster, resource: str, labels: int, finalizers: int
):
    created = await cluster.create(resource, good(resource, {}))
    old = cluster.get(resource, created["metadata"]["name"])
    for change, times in (({"metadata.labels": {"x": "$"}}, labels), ({"metadata.finalizers": ["é"]}, finalizers)):
        async with refused(422) as caught:
            await cluster.update(resource, changed(old, change))
        assert len(caught.value.details["causes"]) == times


@pytest.mark.parametrize(
    ("kind", "patch", "start"),
    [
        (MERGE, {"data": {"k": 5}}, '"metadata":{"name":"c","namespace":"default",'),
        (MERGE, {"metadata": {"name": "c"}, "data": {"k": 5}}, '"metadata":{"creationTimestamp":'),
        (
            JSON_PATCH,
            [{"op": "add", "path": "/metadata/labels", "value": {"b": "1", "a": 5}}],
            '"metadata":{"creationTimestamp":',
        ),
        (
            JSON_PATCH,
            [{"op": "replace", "path": "/data/k", "value": 5}],
            '"metadata":{"name":"c","namespace":"default",',
        ),
    ],
)
async def test_a_complaint_about_a_patch_quotes_what_it_reaches_by_the_alphabet(
    cluster: Cluster, kind: str, patch: object, start: str
):
    await cluster.create("configmaps", {"metadata": {"name": "c"}, "data": {"k": "v"}})
    async with refused(422) as caught:
        await cluster.patch("configmaps", "c", patch, kind=kind)
    assert start in caught.value.message.replace('\\"', '"')


async def test_a_driver_has_no_field_of_a_feature_that_is_off(cluster: Cluster):
    body = good("csidrivers.storage.k8s.io", {"spec.preventPodSchedulingIfMissing": True})
    made = await cluster.create("csidrivers.storage.k8s.io", body)
    assert "preventPodSchedulingIfMissing" not in made["spec"]


async def test_only_the_generated_name_is_judged_where_upstream_does(cluster: Cluster):
    body = {"metadata": {"generateName": "Bad_"}, "spec": {}}
    async with refused(422, "Invalid") as caught:
        await cluster.create("deviceclasses.resource.k8s.io", body)
    assert [cause["field"] for cause in caught.value.details["causes"]] == ["metadata.name"]
