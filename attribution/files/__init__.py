"""Files from outside: read in bounded time and memory, written only where nothing of value is lost.

destinations  where output may go
foreign       files that somebody else wrote, read in bounded time and memory
"""
