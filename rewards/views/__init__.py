"""What is read of the books for people, pages and scrapes. Writes nothing.

browsing      pages of receipts and entries, filtered, each beginning after the last row of the one before
condition     how the books fare, for whoever watches them
contribution  who contributed what, added up once and then only caught up
latest        the newest receipts and entries first, in pages, and which responses were reversed
ownership     what in the books is a client's own
page          a page of rows, and where the next one begins
selection     which receipts are meant, of a period or of all time, and what they come to
standing      how contribution stands after one receipt: immutable figures, and how they add up
"""
