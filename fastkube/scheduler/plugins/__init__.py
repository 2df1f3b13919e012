"""The default plugins, a module each (the two about resources share one)."""

from __future__ import annotations

from fastkube.scheduler.framework import Plugin
from fastkube.scheduler.plugins.default_binder import DefaultBinder
from fastkube.scheduler.plugins.default_preemption import DefaultPreemption
from fastkube.scheduler.plugins.dynamic_resources import DynamicResources
from fastkube.scheduler.plugins.gang_scheduling import GangScheduling
from fastkube.scheduler.plugins.image_locality import ImageLocality
from fastkube.scheduler.plugins.interpod_affinity import InterPodAffinity
from fastkube.scheduler.plugins.node_affinity import NodeAffinity
from fastkube.scheduler.plugins.node_declared_features import NodeDeclaredFeatures
from fastkube.scheduler.plugins.node_name import NodeName
from fastkube.scheduler.plugins.node_ports import NodePorts
from fastkube.scheduler.plugins.node_resources import NodeResourcesBalancedAllocation, NodeResourcesFit
from fastkube.scheduler.plugins.node_unschedulable import NodeUnschedulable
from fastkube.scheduler.plugins.node_volume_limits import NodeVolumeLimits
from fastkube.scheduler.plugins.pod_topology_spread import PodTopologySpread
from fastkube.scheduler.plugins.priority_sort import PrioritySort
from fastkube.scheduler.plugins.scheduling_gates import SchedulingGates
from fastkube.scheduler.plugins.taint_toleration import TaintToleration
from fastkube.scheduler.plugins.volume_binding import VolumeBinding
from fastkube.scheduler.plugins.volume_restrictions import VolumeRestrictions
from fastkube.scheduler.plugins.volume_zone import VolumeZone

BUILT_IN: tuple[type[Plugin], ...] = (
    SchedulingGates,
    PrioritySort,
    NodeUnschedulable,
    NodeName,
    TaintToleration,
    NodeAffinity,
    NodePorts,
    NodeResourcesFit,
    VolumeRestrictions,
    NodeVolumeLimits,
    VolumeBinding,
    VolumeZone,
    PodTopologySpread,
    InterPodAffinity,
    DynamicResources,
    DefaultPreemption,
    NodeResourcesBalancedAllocation,
    ImageLocality,
    DefaultBinder,
    NodeDeclaredFeatures,
    GangScheduling,
)
