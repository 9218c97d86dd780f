"""The tables as numbered migrations: one logical schema, rendered in the dialect of either engine.

`docs/formats.md` ("Store schema") says what the columns mean. A migration is never edited once
released: add the next number.
"""

from __future__ import annotations

from capsign_adapter.store.migration import Migration

MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        1,
        "ledger, log, control",
        (
            # One row. Every writer reads it first and writes it last: it is what serialises
            # replicas on PostgreSQL.
            """CREATE TABLE control (
                id {int} PRIMARY KEY CHECK (id = 1),
                revocation_epoch {int} NOT NULL CHECK (revocation_epoch > 0),
                intent_watermark_ms {int} NOT NULL CHECK (intent_watermark_ms >= 0),
                tree_size {int} NOT NULL CHECK (tree_size >= 0),
                frontier {blob} NOT NULL
            )""",
            "CREATE TABLE workloads (id {auto}, spiffe_id TEXT NOT NULL UNIQUE)",
            # The intent id leads the key: ids carry their time, so rows are added at the right edge
            # and collected from the left.
            """CREATE TABLE intents (
                intent_id {blob} NOT NULL,
                workload_id {int} NOT NULL,
                fingerprint {blob} NOT NULL,
                grant_name TEXT NOT NULL,
                state {int} NOT NULL CHECK (state IN (1, 2, 3)),
                result {blob} NOT NULL,
                leaf_index {int} NOT NULL,
                PRIMARY KEY (intent_id, workload_id)
            ){clustered}""",
            """CREATE TABLE handle_uses (
                handle_serial {blob} PRIMARY KEY,
                used {int} NOT NULL,
                last_used_ms {int} NOT NULL
            ){clustered}""",
            """CREATE TABLE log_segments (
                first_index {int} PRIMARY KEY,
                leaf_count {int} NOT NULL CHECK (leaf_count > 0),
                hashes {blob} NOT NULL,
                entries {blob} NOT NULL,
                written_ms {int} NOT NULL
            )""",
            """CREATE TABLE log_nodes (
                tile_level {int} NOT NULL,
                node_index {int} NOT NULL,
                hash {blob} NOT NULL,
                PRIMARY KEY (tile_level, node_index)
            ){clustered}""",
            """CREATE TABLE checkpoint (
                id {int} PRIMARY KEY CHECK (id = 1),
                tree_size {int} NOT NULL,
                root {blob} NOT NULL,
                note {blob} NOT NULL,
                at_ms {int} NOT NULL
            )""",
            """CREATE TABLE revocations (
                epoch {int} PRIMARY KEY,
                kind {int} NOT NULL,
                target TEXT NOT NULL,
                at_ms {int} NOT NULL,
                leaf_index {int} NOT NULL
            )""",
            """CREATE TABLE key_versions (
                id {auto},
                tenant TEXT NOT NULL,
                key_name TEXT NOT NULL,
                version {int} NOT NULL,
                state {int} NOT NULL,
                algorithms TEXT NOT NULL,
                label TEXT NOT NULL,
                check_value {blob} NOT NULL,
                created_ms {int} NOT NULL,
                activated_ms {int} NOT NULL,
                activation_epoch {int} NOT NULL,
                derived {int} NOT NULL,
                UNIQUE (tenant, key_name, version)
            )""",
            # Who may hold a signature that is committed and not yet on the wire: what a revocation
            # waits for.
            """CREATE TABLE replicas (
                replica_id {blob} PRIMARY KEY,
                working_epoch {int} NOT NULL,
                drained_epoch {int} NOT NULL,
                lease_ms {int} NOT NULL
            ){clustered}""",
            """CREATE TABLE audit_boots (
                workload_id {int} NOT NULL,
                boot_id {blob} NOT NULL,
                accepted_through {int} NOT NULL,
                last_hash {blob} NOT NULL,
                closed {int} NOT NULL,
                PRIMARY KEY (workload_id, boot_id)
            ){clustered}""",
            """CREATE TABLE audit_batches (
                leaf_index {int} PRIMARY KEY,
                workload_id {int} NOT NULL,
                boot_id {blob} NOT NULL,
                first_sequence {int} NOT NULL,
                last_sequence {int} NOT NULL,
                batch_hash {blob} NOT NULL,
                batch {blob} NOT NULL,
                UNIQUE (workload_id, boot_id, last_sequence)
            )""",
        ),
        tuning={
            "postgresql": (
                # Hashes do not compress and a commit must not wait for the attempt; the one hot row
                # needs room for its versions.
                "ALTER TABLE log_segments ALTER COLUMN hashes SET STORAGE EXTERNAL",
                "ALTER TABLE log_segments ALTER COLUMN entries SET STORAGE EXTERNAL",
                "ALTER TABLE control SET (fillfactor = 10)",
            ),
        },
    ),
    Migration(
        2,
        "authorities",
        (
            """CREATE TABLE authorities (
                version {int} PRIMARY KEY,
                state {int} NOT NULL CHECK (state IN (1, 2, 3)),
                certificate {blob} NOT NULL,
                label TEXT NOT NULL,
                check_value {blob} NOT NULL,
                created_ms {int} NOT NULL,
                expires_ms {int} NOT NULL,
                activated_ms {int} NOT NULL,
                signed_until_ms {int} NOT NULL,
                retired_ms {int} NOT NULL
            )""",
        ),
    ),
    Migration(3, "answers in a form of their own", ()),
    Migration(
        4,
        "versions of the policy",
        (
            """CREATE TABLE policies (
                version {int} PRIMARY KEY CHECK (version > 0),
                digest {blob} NOT NULL,
                base {int} NOT NULL CHECK (base >= 0 AND base < version),
                state {int} NOT NULL CHECK (state BETWEEN 1 AND 7),
                proposer TEXT NOT NULL,
                proposed_ms {int} NOT NULL,
                decided_by TEXT NOT NULL,
                decided_ms {int} NOT NULL,
                until_ms {int} NOT NULL,
                document {blob} NOT NULL
            )""",
            # Two versions in force would be two answers to who may sign what.
            "CREATE UNIQUE INDEX policies_in_force ON policies (state) WHERE state = 2",
        ),
    ),
    Migration(
        5,
        "publication of key versions",
        (
            "ALTER TABLE key_versions ADD COLUMN published_ms {int} NOT NULL DEFAULT 0",
            "ALTER TABLE key_versions ADD COLUMN since_ms {int} NOT NULL DEFAULT 0",
            # What signs was shown to verifiers from its activation on; 0 where it never was.
            "UPDATE key_versions SET published_ms = activated_ms, since_ms = "
            "CASE WHEN activated_ms > 0 THEN activated_ms ELSE created_ms END",
            """CREATE UNIQUE INDEX key_activations
                ON key_versions (tenant, key_name, activation_epoch)
                WHERE activation_epoch > 0""",
        ),
    ),
    Migration(
        6,
        "claims of keys, and what is gone",
        (
            "ALTER TABLE key_versions ADD COLUMN gone_ms {int} NOT NULL DEFAULT 0",
            """CREATE TABLE key_claims (
                tenant TEXT NOT NULL,
                key_name TEXT NOT NULL,
                version {int} NOT NULL CHECK (version > 0),
                holder {blob} NOT NULL,
                until_ms {int} NOT NULL,
                PRIMARY KEY (tenant, key_name, version)
            ){clustered}""",
        ),
    ),
    Migration(
        7,
        "proposals",
        (
            """CREATE TABLE proposals (
                id {blob} PRIMARY KEY,
                act {int} NOT NULL,
                target TEXT NOT NULL,
                digest {blob} NOT NULL,
                payload {blob} NOT NULL,
                proposer TEXT NOT NULL,
                created_ms {int} NOT NULL,
                expires_ms {int} NOT NULL,
                waits_ms {int} NOT NULL,
                state {int} NOT NULL CHECK (state BETWEEN 1 AND 7),
                not_before_ms {int} NOT NULL,
                decided_by TEXT NOT NULL,
                decided_ms {int} NOT NULL,
                executed_ms {int} NOT NULL,
                glass {int} NOT NULL,
                acknowledged_by TEXT NOT NULL,
                acknowledged_ms {int} NOT NULL
            )""",
            # Every replica looks for these each second.
            """CREATE INDEX waiting_proposals ON proposals (id)
                WHERE state IN (1, 2) OR (glass <> 0 AND acknowledged_by = '')""",
        ),
    ),
    Migration(
        8,
        "rollouts",
        (
            """CREATE TABLE rollouts (
                id {blob} PRIMARY KEY,
                tenant TEXT NOT NULL,
                key_name TEXT NOT NULL,
                number {int} NOT NULL CHECK (number > 0),
                before_version {int} NOT NULL,
                before_algorithm {int} NOT NULL,
                after_version {int} NOT NULL,
                after_algorithm {int} NOT NULL,
                stages TEXT NOT NULL,
                started_by TEXT NOT NULL,
                started_ms {int} NOT NULL,
                revision {int} NOT NULL,
                stage {int} NOT NULL CHECK (stage BETWEEN 1 AND 10),
                step {int} NOT NULL,
                pace {int} NOT NULL CHECK (pace IN (1, 2, 3)),
                stage_since_ms {int} NOT NULL,
                paused_ms {int} NOT NULL,
                figures TEXT NOT NULL,
                previous {blob} NOT NULL,
                UNIQUE (tenant, key_name, number)
            )""",
            "CREATE UNIQUE INDEX rollouts_under_way ON rollouts (tenant, key_name) WHERE stage < 7",
            """CREATE TABLE rollout_steps (
                rollout_id {blob} NOT NULL,
                revision {int} NOT NULL,
                act {int} NOT NULL,
                stage {int} NOT NULL,
                step {int} NOT NULL,
                pace {int} NOT NULL,
                actor TEXT NOT NULL,
                at_ms {int} NOT NULL,
                epoch {int} NOT NULL,
                leaf_index {int} NOT NULL,
                figures TEXT NOT NULL,
                PRIMARY KEY (rollout_id, revision)
            ){clustered}""",
        ),
    ),
    Migration(
        9,
        "revocations that are lifted",
        (
            "ALTER TABLE revocations ADD COLUMN revoked_by TEXT NOT NULL DEFAULT ''",
            "ALTER TABLE revocations ADD COLUMN lifted_epoch {int} NOT NULL DEFAULT 0",
        ),
    ),
    Migration(
        10,
        "who fetched public keys",
        (
            """CREATE TABLE key_readers (
                tenant TEXT NOT NULL,
                key_name TEXT NOT NULL,
                grant_name TEXT NOT NULL,
                workload TEXT NOT NULL,
                version {int} NOT NULL CHECK (version > 0),
                sequence {int} NOT NULL,
                fetches {int} NOT NULL CHECK (fetches > 0),
                fetched_ms {int} NOT NULL,
                PRIMARY KEY (tenant, key_name, grant_name, workload)
            ){clustered}""",
        ),
    ),
    Migration(
        11,
        "drift, and when keys were used",
        (
            """CREATE TABLE drift_revision (
                id {int} PRIMARY KEY CHECK (id = 1), revision {int} NOT NULL
            )""",
            "INSERT INTO drift_revision (id, revision) VALUES (1, 0)",
            """CREATE TABLE drift (
                kind {int} NOT NULL,
                subject TEXT NOT NULL,
                aspect TEXT NOT NULL,
                expected TEXT NOT NULL, found TEXT NOT NULL,
                since_ms {int} NOT NULL, leaf_index {int} NOT NULL,
                PRIMARY KEY (kind, subject, aspect)
            ){clustered}""",
            """CREATE TABLE replica_reports (
                replica_id {blob} PRIMARY KEY, seen_ms {int} NOT NULL, report TEXT NOT NULL
            ){clustered}""",
            """CREATE TABLE key_uses (
                tenant TEXT NOT NULL, key_name TEXT NOT NULL, version {int} NOT NULL,
                last_ms {int} NOT NULL, uses {int} NOT NULL,
                PRIMARY KEY (tenant, key_name, version)
            ){clustered}""",
        ),
    ),
    Migration(
        12,
        "summaries of the log's tiles",
        ("CREATE TABLE log_summaries (tile_index {int} PRIMARY KEY, summary {blob} NOT NULL)",),
    ),
    Migration(
        13,
        "the published checkpoint",
        (
            """CREATE TABLE published (
                id {int} PRIMARY KEY CHECK (id = 1),
                tree_size {int} NOT NULL,
                root {blob} NOT NULL,
                note {blob} NOT NULL,
                at_ms {int} NOT NULL
            )""",
        ),
    ),
    Migration(
        14,
        "reconciliation and incidents",
        (
            """CREATE TABLE reconciliation (
                id {int} PRIMARY KEY CHECK (id = 1),
                revision {int} NOT NULL,
                holder {blob} NOT NULL, until_ms {int} NOT NULL,
                position {int} NOT NULL, state {blob} NOT NULL
            )""",
            """CREATE TABLE incidents (
                kind {int} NOT NULL,
                workload TEXT NOT NULL, boot_id {blob} NOT NULL, digest {blob} NOT NULL,
                intent_id {blob} NOT NULL,
                leaf_plus_one {int} NOT NULL,
                first_sequence {int} NOT NULL, last_sequence {int} NOT NULL,
                subjects {int} NOT NULL,
                since_ms {int} NOT NULL, leaf_index {int} NOT NULL,
                PRIMARY KEY (kind, workload, boot_id, digest)
            ){clustered}""",
        ),
    ),
    Migration(
        15,
        "erased tenants",
        (
            """CREATE TABLE erasures (
                tenant TEXT PRIMARY KEY, epoch {int} NOT NULL,
                erased_ms {int} NOT NULL, gone_ms {int} NOT NULL
            )""",
        ),
    ),
    Migration(
        16,
        "leaves in cold files",
        (
            "CREATE TABLE log_cold (id {int} PRIMARY KEY CHECK (id = 1), size {int} NOT NULL)",
            "INSERT INTO log_cold (id, size) VALUES (1, 0)",
        ),
    ),
    Migration(
        17,
        "a contradiction of the log",
        (
            """CREATE TABLE contradiction (
                id {int} PRIMARY KEY CHECK (id = 1),
                sentence TEXT NOT NULL, note {blob} NOT NULL, at_ms {int} NOT NULL
            )""",
        ),
    ),
    Migration(18, "agents' batches are packed", ()),  # those that are there stay as they are
)

LATEST = MIGRATIONS[-1].number

STORED_RESULTS = 3
"""From this number on answers are stored in a form of their own (`stored_result`). What is older
cannot be read: it was the message of a wire that is no more.
"""

MIGRATIONS_TABLE = (
    "CREATE TABLE schema_migrations (number {int} PRIMARY KEY, name TEXT NOT NULL, "
    "applied_ms {int} NOT NULL)"
)
