"""How Go prints its internal structs: in complaints that quote a whole struct, and in the diffs of refused updates.

Upstream quotes its internal types, whose JSON has Go's field names, Go's order, and every field, empty or not. The
tables below are those types, field by field: `name` or `name=wireKey` (without it, the name with a small first letter),
then `:` and how an absent value prints:
    nothing ""      0 `0`      ! `false`      * `null` (pointers, lists, maps)      q the quantity "0"
    T another table's struct, *T a pointer to one, []T a list of them
What is no struct of these tables (labels, selectors, object metadata) prints as on the wire, maps sorted.
"""

from __future__ import annotations

import difflib
import json
from functools import cache
from typing import Any, NamedTuple

from fastkube.api import field

Object = dict[str, Any]

_STRUCTS = {
    # ---- pods
    "PodTemplateSpec": "Spec:PodSpec",
    "PodSpec": "Volumes:[]Volume InitContainers:[]Container Containers:[]Container "
    "EphemeralContainers:[]EphemeralContainer RestartPolicy TerminationGracePeriodSeconds:* ActiveDeadlineSeconds:* "
    "DNSPolicy=dnsPolicy NodeSelector:* ServiceAccountName AutomountServiceAccountToken:* NodeName "
    "SecurityContext:*PodSecurityContext ImagePullSecrets:[]LocalObjectReference Hostname Subdomain "
    "SetHostnameAsFQDN:* Affinity:*Affinity SchedulerName Tolerations:[]Toleration HostAliases:[]HostAlias "
    "PriorityClassName Priority:* PreemptionPolicy:* DNSConfig=dnsConfig:*PodDNSConfig "
    "ReadinessGates:[]PodReadinessGate RuntimeClassName:* Overhead:* EnableServiceLinks:* "
    "TopologySpreadConstraints:[]TopologySpreadConstraint OS=os:*PodOS SchedulingGates:[]PodSchedulingGate "
    "ResourceClaims:[]PodResourceClaim Resources:*ResourceRequirements HostnameOverride:* SchedulingGroup:*",
    "PodSecurityContext": "HostNetwork:! HostPID=hostPID:! HostIPC=hostIPC:! ShareProcessNamespace:* HostUsers:* "
    "SELinuxOptions=seLinuxOptions:*SELinuxOptions WindowsOptions:*WindowsOptions RunAsUser:* RunAsGroup:* "
    "RunAsNonRoot:* SupplementalGroups:* SupplementalGroupsPolicy:* FSGroup=fsGroup:* "
    "FSGroupChangePolicy=fsGroupChangePolicy:* Sysctls:[]Sysctl SeccompProfile:*SeccompProfile "
    "AppArmorProfile:*SeccompProfile SELinuxChangePolicy=seLinuxChangePolicy:*",
    "SecurityContext": "Capabilities:*Capabilities Privileged:* SELinuxOptions=seLinuxOptions:*SELinuxOptions "
    "WindowsOptions:*WindowsOptions RunAsUser:* RunAsGroup:* RunAsNonRoot:* ReadOnlyRootFilesystem:* "
    "AllowPrivilegeEscalation:* ProcMount:* SeccompProfile:*SeccompProfile AppArmorProfile:*SeccompProfile",
    "Capabilities": "Add:* Drop:*",
    "SELinuxOptions": "User Role Type Level",
    "WindowsOptions": "GMSACredentialSpecName=gmsaCredentialSpecName:* GMSACredentialSpec=gmsaCredentialSpec:* "
    "RunAsUserName:* HostProcess:*",
    "SeccompProfile": "Type LocalhostProfile:*",
    "Sysctl": "Name Value",
    "LocalObjectReference": "Name",
    "PodOS": "Name",
    "PodSchedulingGate": "Name",
    "PodReadinessGate": "ConditionType",
    "HostAlias": "IP=ip Hostnames:*",
    "PodDNSConfig": "Nameservers:* Searches:* Options:[]PodDNSConfigOption",
    "PodDNSConfigOption": "Name Value:*",
    "PodResourceClaim": "Name ResourceClaimName:* ResourceClaimTemplateName:*",
    "Toleration": "Key Operator Value Effect TolerationSeconds:*",
    "TopologySpreadConstraint": "MaxSkew:0 TopologyKey WhenUnsatisfiable LabelSelector:* MinDomains:* "
    "NodeAffinityPolicy:* NodeTaintsPolicy:* MatchLabelKeys:*",
    "Affinity": "NodeAffinity:*NodeAffinity PodAffinity:*PodAffinity PodAntiAffinity:*PodAffinity",
    "NodeAffinity": "RequiredDuringSchedulingIgnoredDuringExecution:*NodeSelector "
    "PreferredDuringSchedulingIgnoredDuringExecution:[]PreferredSchedulingTerm",
    "PodAffinity": "RequiredDuringSchedulingIgnoredDuringExecution:[]PodAffinityTerm "
    "PreferredDuringSchedulingIgnoredDuringExecution:[]WeightedPodAffinityTerm",
    "WeightedPodAffinityTerm": "Weight:0 PodAffinityTerm:PodAffinityTerm",
    "PodAffinityTerm": "LabelSelector:* Namespaces:* TopologyKey NamespaceSelector:* MatchLabelKeys:* "
    "MismatchLabelKeys:*",
    "PreferredSchedulingTerm": "Weight:0 Preference:NodeSelectorTerm",
    "VolumeNodeAffinity": "Required:*NodeSelector",
    "NodeSelector": "NodeSelectorTerms:[]NodeSelectorTerm",
    "NodeSelectorTerm": "MatchExpressions:[]NodeSelectorRequirement MatchFields:[]NodeSelectorRequirement",
    "NodeSelectorRequirement": "Key Operator Values:*",
    # ---- containers
    "Container": "Name Image Command:* Args:* WorkingDir Ports:[]ContainerPort EnvFrom:[]EnvFromSource Env:[]EnvVar "
    "Resources:ResourceRequirements ResizePolicy:[]ContainerResizePolicy RestartPolicy:* "
    "RestartPolicyRules:[]ContainerRestartRule VolumeMounts:[]VolumeMount VolumeDevices:[]VolumeDevice "
    "LivenessProbe:*Probe ReadinessProbe:*Probe StartupProbe:*Probe Lifecycle:*Lifecycle TerminationMessagePath "
    "TerminationMessagePolicy ImagePullPolicy SecurityContext:*SecurityContext Stdin:! StdinOnce:! TTY=tty:!",
    "EphemeralContainer": "+Container TargetContainerName",
    "ContainerPort": "Name HostPort:0 ContainerPort:0 Protocol HostIP=hostIP",
    "ContainerResizePolicy": "ResourceName RestartPolicy",
    "ContainerRestartRule": "Action ExitCodes:*ContainerRestartRuleOnExitCodes",
    "ContainerRestartRuleOnExitCodes": "Operator Values:*",
    "EnvFromSource": "Prefix ConfigMapRef:*NameRef SecretRef:*NameRef",
    "NameRef": "Name Optional:*",
    "EnvVar": "Name Value ValueFrom:*EnvVarSource",
    "EnvVarSource": "FieldRef:*ObjectFieldSelector ResourceFieldRef:*ResourceFieldSelector "
    "ConfigMapKeyRef:*KeySelector SecretKeyRef:*KeySelector FileKeyRef:*FileKeySelector",
    "ObjectFieldSelector": "APIVersion=apiVersion FieldPath",
    "ResourceFieldSelector": "ContainerName Resource Divisor:q",
    "KeySelector": "Name Key Optional:*",
    "FileKeySelector": "VolumeName Path Key Optional:*",
    "ResourceRequirements": "Limits:* Requests:* Claims:[]ResourceClaim",
    "ResourceClaim": "Name Request",
    "VolumeMount": "Name ReadOnly:! RecursiveReadOnly:* MountPath SubPath MountPropagation:* SubPathExpr",
    "VolumeDevice": "Name DevicePath",
    "Probe": "+Handler InitialDelaySeconds:0 TimeoutSeconds:0 PeriodSeconds:0 SuccessThreshold:0 FailureThreshold:0 "
    "TerminationGracePeriodSeconds:*",
    "Handler": "Exec:*ExecAction HTTPGet=httpGet:*HTTPGetAction TCPSocket=tcpSocket:*TCPSocketAction "
    "GRPC=grpc:*GRPCAction",
    "LifecycleHandler": "Exec:*ExecAction HTTPGet=httpGet:*HTTPGetAction TCPSocket=tcpSocket:*TCPSocketAction "
    "Sleep:*SleepAction",
    "Lifecycle": "PostStart:*LifecycleHandler PreStop:*LifecycleHandler StopSignal:*",
    "ExecAction": "Command:*",
    "HTTPGetAction": "Path Port:0 Host Scheme HTTPHeaders=httpHeaders:[]HTTPHeader",
    "HTTPHeader": "Name Value",
    "TCPSocketAction": "Port:0 Host",
    "GRPCAction": "Port:0 Service:*",
    "SleepAction": "Seconds:0",
    # ---- volumes
    "Volume": "Name +VolumeSource",
    "VolumeSource": "HostPath:*HostPath EmptyDir:*EmptyDir "
    "GCEPersistentDisk=gcePersistentDisk:*GCEPersistentDisk "
    "AWSElasticBlockStore=awsElasticBlockStore:*AWSElasticBlockStore GitRepo:*GitRepo Secret:*SecretVolume "
    "NFS=nfs:*NFS ISCSI=iscsi:*ISCSI Glusterfs:*Glusterfs PersistentVolumeClaim:*ClaimVolume RBD=rbd:*RBD "
    "Quobyte:*Quobyte FlexVolume:*FlexVolume Cinder:*Cinder CephFS=cephfs:*CephFS Flocker:*Flocker "
    "DownwardAPI=downwardAPI:*DownwardAPIVolume FC=fc:*FC AzureFile:*AzureFile ConfigMap:*ConfigMapVolume "
    "VsphereVolume:*VsphereVolume AzureDisk:*AzureDisk PhotonPersistentDisk:*PhotonPersistentDisk "
    "Projected:*Projected PortworxVolume:*Portworx ScaleIO=scaleIO:*ScaleIO StorageOS=storageos:*StorageOS "
    "CSI=csi:*CSIVolume Ephemeral:*EphemeralVolume Image:*ImageVolume",
    "PersistentVolumeSource": "GCEPersistentDisk=gcePersistentDisk:*GCEPersistentDisk "
    "AWSElasticBlockStore=awsElasticBlockStore:*AWSElasticBlockStore HostPath:*HostPath "
    "Glusterfs:*GlusterfsPersistent NFS=nfs:*NFS RBD=rbd:*RBD Quobyte:*Quobyte ISCSI=iscsi:*ISCSI "
    "FlexVolume:*FlexVolume Cinder:*Cinder CephFS=cephfs:*CephFS FC=fc:*FC Flocker:*Flocker "
    "AzureFile:*AzureFilePersistent VsphereVolume:*VsphereVolume AzureDisk:*AzureDisk "
    "PhotonPersistentDisk:*PhotonPersistentDisk PortworxVolume:*Portworx ScaleIO=scaleIO:*ScaleIO Local:*Local "
    "StorageOS=storageos:*StorageOS CSI=csi:*CSIPersistent",
    "HostPath": "Path Type:*",
    "EmptyDir": "Medium SizeLimit:*",
    "GCEPersistentDisk": "PDName=pdName FSType=fsType Partition:0 ReadOnly:!",
    "AWSElasticBlockStore": "VolumeID=volumeID FSType=fsType Partition:0 ReadOnly:!",
    "GitRepo": "Repository Revision Directory",
    "SecretVolume": "SecretName Items:[]KeyToPath DefaultMode:* Optional:*",
    "ConfigMapVolume": "Name Items:[]KeyToPath DefaultMode:* Optional:*",
    "KeyToPath": "Key Path Mode:*",
    "NFS": "Server Path ReadOnly:!",
    "ISCSI": "TargetPortal IQN=iqn Lun:0 ISCSIInterface=iscsiInterface FSType=fsType ReadOnly:! Portals:* "
    "DiscoveryCHAPAuth=chapAuthDiscovery:! SessionCHAPAuth=chapAuthSession:! SecretRef:*SecretReference "
    "InitiatorName:*",
    "SecretReference": "Name Namespace",
    "Glusterfs": "EndpointsName=endpoints Path ReadOnly:!",
    "GlusterfsPersistent": "EndpointsName=endpoints Path ReadOnly:! EndpointsNamespace:*",
    "ClaimVolume": "ClaimName ReadOnly:!",
    "RBD": "CephMonitors=monitors:* RBDImage=image FSType=fsType RBDPool=pool RadosUser=user Keyring "
    "SecretRef:*SecretReference ReadOnly:!",
    "Quobyte": "Registry Volume ReadOnly:! User Group Tenant",
    "FlexVolume": "Driver FSType=fsType SecretRef:*SecretReference ReadOnly:! Options:*",
    "Cinder": "VolumeID=volumeID FSType=fsType ReadOnly:! SecretRef:*SecretReference",
    "CephFS": "Monitors:* Path User SecretFile SecretRef:*SecretReference ReadOnly:!",
    "Flocker": "DatasetName DatasetUUID=datasetUUID",
    "DownwardAPIVolume": "Items:[]DownwardAPIFile DefaultMode:*",
    "DownwardAPIFile": "Path FieldRef:*ObjectFieldSelector ResourceFieldRef:*ResourceFieldSelector Mode:*",
    "FC": "TargetWWNs=targetWWNs:* Lun:* FSType=fsType ReadOnly:! WWIDs=wwids:*",
    "AzureFile": "SecretName ShareName ReadOnly:!",
    "AzureFilePersistent": "SecretName ShareName ReadOnly:! SecretNamespace:*",
    "VsphereVolume": "VolumePath FSType=fsType StoragePolicyName StoragePolicyID=storagePolicyID",
    "AzureDisk": "DiskName DataDiskURI=diskURI CachingMode:* FSType=fsType:* ReadOnly:* Kind:*",
    "PhotonPersistentDisk": "PdID=pdID FSType=fsType",
    "Projected": "Sources:[]VolumeProjection DefaultMode:*",
    "VolumeProjection": "Secret:*ConfigMapVolumeProjection DownwardAPI=downwardAPI:*DownwardAPIProjection "
    "ConfigMap:*ConfigMapVolumeProjection ServiceAccountToken:*ServiceAccountTokenProjection "
    "ClusterTrustBundle:*ClusterTrustBundleProjection PodCertificate:*",
    "ConfigMapVolumeProjection": "Name Items:[]KeyToPath Optional:*",
    "DownwardAPIProjection": "Items:[]DownwardAPIFile",
    "ServiceAccountTokenProjection": "Audience ExpirationSeconds:0 Path",
    "ClusterTrustBundleProjection": "Name:* SignerName:* LabelSelector:* Optional:* Path",
    "Portworx": "VolumeID=volumeID FSType=fsType ReadOnly:!",
    "ScaleIO": "Gateway System SecretRef:*SecretReference SSLEnabled=sslEnabled:! ProtectionDomain StoragePool "
    "StorageMode VolumeName FSType=fsType ReadOnly:!",
    "StorageOS": "VolumeName VolumeNamespace FSType=fsType ReadOnly:! SecretRef:*",
    "CSIVolume": "Driver ReadOnly:* FSType=fsType:* VolumeAttributes:* NodePublishSecretRef:*LocalObjectReference",
    "CSIPersistent": "Driver VolumeHandle ReadOnly:! FSType=fsType VolumeAttributes:* "
    "ControllerPublishSecretRef:*SecretReference NodeStageSecretRef:*SecretReference "
    "NodePublishSecretRef:*SecretReference ControllerExpandSecretRef:*SecretReference "
    "NodeExpandSecretRef:*SecretReference",
    "EphemeralVolume": "VolumeClaimTemplate:*ClaimTemplate",
    "ClaimTemplate": "Spec:PersistentVolumeClaimSpec",
    "ImageVolume": "Reference PullPolicy",
    "Local": "Path FSType=fsType:*",
    "PersistentVolumeClaimSpec": "AccessModes:* Selector:* Resources:VolumeResourceRequirements VolumeName "
    "StorageClassName:* VolumeMode:* DataSource:*TypedReference DataSourceRef:*TypedObjectReference "
    "VolumeAttributesClassName:*",
    "VolumeResourceRequirements": "Limits:* Requests:*",
    "TypedReference": "APIGroup=apiGroup:* Kind Name",
    "TypedObjectReference": "APIGroup=apiGroup:* Kind Name Namespace:*",
    # ---- other kinds
    "Taint": "Key Value Effect TimeAdded:*",
    "ScopeSelector": "MatchExpressions:[]ScopeRequirement",
    "ScopeRequirement": "ScopeName Operator Values:*",
    "NodeAddress": "Type Address",
    "ServicePort": "Name Protocol AppProtocol:* Port:0 TargetPort:0 NodePort:0",
    "DeploymentStrategy": "Type RollingUpdate:*RollingUpdateDeployment",
    "RollingUpdateDeployment": "MaxUnavailable:0 MaxSurge:0",
    "DaemonSetUpdateStrategy": "Type RollingUpdate:*RollingUpdateDeployment",
    "StatefulSetUpdateStrategy": "Type RollingUpdate:*RollingUpdateStatefulSetStrategy",
    "RollingUpdateStatefulSetStrategy": "Partition:0 MaxUnavailable:*",
    "PodDisruptionBudgetSpec": "MinAvailable:* Selector:* MaxUnavailable:* UnhealthyPodEvictionPolicy:*",
    "SuccessPolicy": "Rules:[]SuccessPolicyRule",
    "SuccessPolicyRule": "SucceededIndexes:* SucceededCount:*",
    "UncountedTerminatedPods": "Succeeded:* Failed:*",
    "PodFailurePolicy": "Rules:[]PodFailurePolicyRule",
    "PodFailurePolicyRule": "Action OnExitCodes:*PodFailurePolicyOnExitCodes "
    "OnPodConditions:[]PodFailurePolicyOnPodCondition",
    "PodFailurePolicyOnExitCodes": "ContainerName:* Operator Values:*",
    "PodFailurePolicyOnPodCondition": "Type Status",
    "VolumeAttachmentSpec": "Attacher Source:VolumeAttachmentSource NodeName",
    "VolumeAttachmentSource": "PersistentVolumeName:* InlineVolumeSpec:*",
    "AuditAnnotation": "Key ValueExpression",
    "DeviceAttribute": "IntValue=int:* BoolValue=bool:* StringValue=string:* VersionValue=version:* "
    "BoolValues=bools:* IntValues=ints:* StringValues=strings:* VersionValues=versions:*",
    "AllocationResult": "Devices:DeviceAllocationResult NodeSelector:*NodeSelector AllocationTimestamp:*",
    "DeviceAllocationResult": "Results:[]DeviceRequestAllocationResult Config:[]DeviceAllocationConfiguration",
    "DeviceRequestAllocationResult": "Request Driver Pool Device AdminAccess:* Tolerations:[]DeviceToleration "
    "BindingConditions:* BindingFailureConditions:* ShareID=shareID:* ConsumedCapacity:*",
    "DeviceAllocationConfiguration": "Source Requests:* Opaque:*OpaqueDeviceConfiguration",
    "ParentReference": "Group Resource Namespace Name",
    "RoleRef": "APIGroup=apiGroup Kind Name",
    "ObjectReference": "Kind Namespace Name UID=uid APIVersion=apiVersion ResourceVersion FieldPath",
    "EventSource": "Component Host",
    "CertificateSigningRequestCondition": "Type Status Reason Message LastUpdateTime:* LastTransitionTime:*",
    "FlowSchemaSpec": "PriorityLevelConfiguration:LocalObjectReference MatchingPrecedence:0 "
    "DistinguisherMethod:*FlowDistinguisherMethod Rules:[]PolicyRulesWithSubjects",
    "FlowDistinguisherMethod": "Type",
    "PolicyRulesWithSubjects": "Subjects:[]FlowSubject ResourceRules:[]ResourcePolicyRule "
    "NonResourceRules:[]NonResourcePolicyRule",
    "FlowSubject": "Kind User:*LocalObjectReference Group:*LocalObjectReference ServiceAccount:*FlowServiceAccount",
    "FlowServiceAccount": "Namespace Name",
    "ResourcePolicyRule": "Verbs:* APIGroups=apiGroups:* Resources:* ClusterScope:! Namespaces:*",
    "NonResourcePolicyRule": "Verbs:* NonResourceURLs=nonResourceURLs:*",
    "PriorityLevelConfigurationSpec": "Type Limited:*LimitedPriorityLevel Exempt:*ExemptPriorityLevel",
    "LimitedPriorityLevel": "NominalConcurrencyShares:0 LimitResponse:LimitResponse LendablePercent:* "
    "BorrowingLimitPercent:*",
    "LimitResponse": "Type Queuing:*QueuingConfiguration",
    "QueuingConfiguration": "Queues:0 HandSize:0 QueueLengthLimit:0",
    "ExemptPriorityLevel": "NominalConcurrencyShares:* LendablePercent:*",
    "CSINodeDriver": "Name NodeID=nodeID TopologyKeys:* Allocatable:*VolumeNodeResources",
    "VolumeNodeResources": "Count:*",
    "ResourceClaimTemplateSpec": "Spec:ResourceClaimSpec",
    "ResourceClaimSpec": "Devices:DeviceClaim",
    "DeviceClaim": "Requests:[]DeviceRequest Constraints:[]DeviceConstraint Config:[]DeviceClaimConfiguration",
    "DeviceRequest": "Name Exactly:*ExactDeviceRequest FirstAvailable:[]DeviceSubRequest",
    "ExactDeviceRequest": "DeviceClassName Selectors:[]DeviceSelector AllocationMode Count:0 AdminAccess:* "
    "Tolerations:[]DeviceToleration Capacity:*CapacityRequirements",
    "DeviceSubRequest": "Name DeviceClassName Selectors:[]DeviceSelector AllocationMode Count:0 "
    "Tolerations:[]DeviceToleration Capacity:*CapacityRequirements",
    "DeviceSelector": "CEL=cel:*CELDeviceSelector",
    "CELDeviceSelector": "Expression",
    "DeviceToleration": "Key Operator Value Effect TolerationSeconds:*",
    "CapacityRequirements": "Requests:*",
    "DeviceConstraint": "Requests:* MatchAttribute:* DistinctAttribute:*",
    "DeviceClaimConfiguration": "Requests:* Opaque:*OpaqueDeviceConfiguration",
    "OpaqueDeviceConfiguration": "Driver Parameters:*",
    "NonResourceAttributes": "Path Verb",
}

_ABSENT: dict[str, Any] = {"": "", "0": 0, "!": False, "*": None, "q": "0"}

# Internally these stand in the pod's security context, on the wire beside it.
_POD_HOST_FIELDS = ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "hostUsers")


class _Field(NamedTuple):
    name: str
    key: str
    kind: str


@cache
def _fields(struct: str) -> tuple[_Field, ...]:
    fields: list[_Field] = []
    for told in _STRUCTS[struct].split():
        if told[0] == "+":
            fields += _fields(told[1:])
            continue
        name, _, kind = told.partition(":")
        name, _, key = name.partition("=")
        fields.append(_Field(name, key or name[0].lower() + name[1:], kind))
    return tuple(fields)


def internal(struct: str, value: Object) -> Object:
    """The struct as Go holds it: every field, in Go's order."""
    if struct == "PodSpec":
        value = _with_host_fields(value)
    told: Object = dict(_metadata(value)) if struct in _WITH_METADATA else {}
    for name, key, kind in _fields(struct):
        told[name] = _value(kind, value.get(key))
    return told


_WITH_METADATA = frozenset(("PodTemplateSpec", "ClaimTemplate", "ResourceClaimTemplateSpec"))
_METADATA_ORDER = ("name", "generateName", "namespace", "uid", "labels", "annotations", "finalizers")


def _metadata(value: Object) -> Object:
    """Object metadata keeps its wire names and leaves out what is empty."""
    metadata = value.get("metadata") or {}
    return {key: _sorted(metadata[key]) for key in _METADATA_ORDER if metadata.get(key)}


def _with_host_fields(spec: Object) -> Object:
    context = dict(spec.get("securityContext") or {})
    for key in _POD_HOST_FIELDS:
        if key in spec:
            context[key] = spec[key]
    return {**spec, "securityContext": context}


def _value(kind: str, value: Any) -> Any:
    if kind in _ABSENT:
        if value is None or value == {} or value == []:
            return _ABSENT[kind]
        return _sorted(value)
    if kind.startswith("[]"):
        return [internal(kind[2:], item) for item in value] if value else None
    if kind.startswith("*"):
        return None if value is None else internal(kind[1:], value)
    return internal(kind, value or {})


def _sorted(value: Any) -> Any:
    return dict(sorted(value.items())) if isinstance(value, dict) else value


def shown(struct: str, value: Object | None) -> field.Literal:
    """A bad value that Go prints as its internal struct."""
    return field.struct(None if value is None else internal(struct, value))


def shown_list(struct: str, values: list[Object] | None) -> field.Literal:
    return field.struct([internal(struct, value) for value in values] if values else None)


def diff(struct: str, old: Object, new: Object) -> str:
    """What changed, as a unified diff of the indented structs (upstream's util/diff)."""
    return _diff(internal(struct, old), internal(struct, new))


def list_diff(struct: str, old: list[Object], new: list[Object]) -> str:
    """`diff` of two lists of structs."""
    return _diff(*([internal(struct, value) for value in values] for values in (old, new)))


def _diff(old: Any, new: Any) -> str:
    before, after = _lines(old), _lines(new)
    changed = list(difflib.unified_diff(before, after, n=3))[2:]  # the file names are left out
    return "".join(changed)


def _lines(value: Any) -> list[str]:
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    return text.splitlines(keepends=True)
