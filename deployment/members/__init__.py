"""What a member of a consortium signs of its updates, and what holds of that in a bundle; needs the base install alone.

bundle_front         the front page of a bundle as a member reads it, and that its updates are what it names
flower               a member's update signed as it leaves its Flower client, and looked at as it arrives
own_updates          what a member sent, held against a bundle: is it all there, unaltered, nothing else under its name
recorded_signatures  of recorded rounds, before they are taken into a bundle: every update signed by whose it is
round_record         who contributed what to the rounds of a published bundle, and whether that is signed
signatures           whether what a bundle keeps of signed updates holds, for anybody who reads it
signed_updates       what a member signs of one update, and what the aggregator signs for having it
"""
