"""The signing path as numbered steps, and the questions beside it.

 1 identify the caller by its socket     `front.servicer`: each socket has a server of its own
 2 parse and bound                       `front.servicer`: grpcio parses, `bounds.check` walks
 3 find the handle                       `path`, for each group
 4 hold purpose, algorithm and context   `admission`, for each group
 5 rate limit                            `admission`, for each group; the items above it fail alone
 6 hash                                  `inputs`, for each item
 7 journal the intent                    `outcomes`, once for a batch, just before it is sent
 8 coalesce upstream                     `exchange`, then `upstream.coalesce` and `upstream.streams`
 9 check the answer                      `outcomes`, for each item
10 journal the outcome                   `outcomes`, once for a batch, before anybody hears of it
11 reply                                 `group_work`, for each item

Three things are kept apart in what a caller hears. *Refused*: it did not and will not happen.
*Unavailable*: it did not happen. *Unknown*: from the moment a batch may have left, silence means
that it may have happened.
"""
