"""What the service and the operator's commands would use, looked at as it is: nothing is changed, and nothing made.

bundles       the bundles that are set, against what the ledger has published
clock         this machine's clock, against a database server's and what the ledger has stamped
command       `protoken doctor`
examination   everything that is looked at, in its order
findings      what was found of one thing: in order, doubtful or wrong, in one line
folders       a folder: there or makeable, private, with room, and on which kind of disk
ledger        the ledger: there, of this program's schema, and how its file lies
ports         a port: free, or held by a running service
secrets       pepper and signing key
surroundings  what is installed, the policy, and an engine of its own
"""
