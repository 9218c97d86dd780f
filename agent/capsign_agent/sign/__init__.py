"""The signing path as numbered steps, and what an application may ask besides signing.

 1 identify the caller by its socket     `front.servers`: each socket has a server of its own
 2 parse and bound                       `front.servicer`: grpcio parses, `bounds.check` walks
 3 find the handle                       `sign.signing_path`, for each group
 4 check purpose, algorithm and context  `sign.admission`, for each group
 5 rate limit                            `sign.admission`, for each group; excess items fail alone
 6 hash                                  `sign.inputs`, for each item
 7 journal the intent                    `sign.outcomes`, once for a batch, just before it is sent
 8 coalesce upstream                     `sign.exchange` queues, `upstream.streams` sends
 9 check the answer                      `sign.outcomes`, for each item
10 journal the outcome                   `sign.outcomes`, once for a batch, before any caller hears
11 reply                                 `sign.group_work`, for each item

The number of a step stands as a comment on the line at which it happens.

A caller hears one of three failures. *Refused*: the signature was not made and will not be.
*Unavailable*: it was not made; the call may be repeated. *Unknown*: the batch may have reached an
adapter and no answer came, so the signature may have been made.
"""
