"""What Ray does not do by itself: where its ports listen, and that its processes end.

guardian  ends Ray's agents when the service that started them was killed
loopback  where a replica takes calls of other replicas: its node's own address alone
"""
