"""Fan-out over a Ray cluster: ``RayFanOut``, ``ClusterLimiter`` for all of it, ``ChatUDF`` for Ray Data.

Needs the extra: ``pip install 'streamchat[ray]'``, on every machine of the cluster.

**One machine is enough for most jobs.** Waiting for answers costs almost nothing: one process holds
thousands of streams (:meth:`streamchat.Client.fan_out`), and a rate limit is usually reached long before
a core is. Machines are for handlers that need CPU, for very large data that lies in the cluster already,
and for jobs that must survive the loss of a machine; never for waiting on sockets.
"""

from streamchat.ray.data import ChatUDF
from streamchat.ray.fanout import RayFanOut
from streamchat.ray.limits import ClusterLimiter

__all__ = ["ChatUDF", "ClusterLimiter", "RayFanOut"]
