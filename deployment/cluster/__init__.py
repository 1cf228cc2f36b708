"""What Ray does not do by itself: where its ports listen, that its processes end, and that they leave no core file.

How the service is set up on many machines is `deployment.app.cluster`.

core_files  no process leaves a copy of somebody's prompts
guardian    ends Ray's agents when the service that started them was killed
loopback    where a replica takes calls of other replicas: its node's own address alone
machine     whether a machine is what a replica's settings say, and has the memory for its scores
"""
