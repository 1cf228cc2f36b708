"""From generated tokens to booked credit. Knows no engine and no HTTP; what waits lies in `deployment.spool`.

booking_queue    books what is spooled: at once, or again and again until the database is back
credit_recorder  from generated tokens to booked credit: spool, score, receipt, booking
credit_summary   what an application is told of a response's credit, as a whole and token by token
receipts         from an attributed response to a `Receipt` of `rewards.credit`
recovery         what a dead process left: receipts are booked, responses without one are scored
"""
