"""What is asked of the store, a protocol for each who asks; `whole.Store` is all of them.

Durability: when a writing method returns, what it wrote survives kill -9 and power loss. When it
raises StoreUnavailableError nothing was written. When it raises CommitUnknownError nobody can say;
asking again gives the truth, because every write here is safe to repeat.

Concurrency: any thread of any replica may call any method. Writers take turns, in every process: a
write sees all that earlier ones wrote. Readers see what is durable and wait for no writer. No call
waits without end (docs/operations/third-store.md).
"""
