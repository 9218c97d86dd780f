"""The interfaces of the store, one protocol for each kind of caller; `whole.Store` is all of them.

Durability: when a writing method returns, what it wrote survives kill -9 and power loss. When it
raises StoreUnavailableError nothing was written. When it raises CommitUnknownError it is not known
whether it was written; repeating the call gives the truth, because every write here is safe to
repeat.

Concurrency: any thread of any replica may call any method. Writes are serialised over all
processes: each sees all that earlier ones wrote. Readers see what is durable and wait for no
writer. Every wait is bounded (docs/operations/third-store.md).
"""
