// Talks to an agent with nothing but its .proto files, which are read at run time.
//
//   node client.js PROTO_DIR SOCKET PURPOSE ALGORITHM MESSAGE [DIGEST_HEX]
//
// Lists the handles, signs MESSAGE (or the digest) with the handle of PURPOSE over SignStream and over Sign with the same intent,
// verifies through Verify, verifies a changed signature too, resolves the intent, and prints what came of it as one line of JSON.

import { randomBytes } from "node:crypto";
import { createRequire } from "node:module";

// Resolved from the working directory: the packages live where the test installed them, never in the repository.
const fromHere = createRequire(process.cwd() + "/");
const grpc = fromHere("@grpc/grpc-js");
const loader = fromHere("@grpc/proto-loader");

const [protoDir, socket, purpose, algorithm, message, digestHex] = process.argv.slice(2);

const definition = loader.loadSync("capsign/agent/v1/agent.proto", {
  includeDirs: [protoDir],
  keepCase: true,
  longs: String,
  enums: String,
  oneofs: true,
  defaults: true,
});
const { SigningService } = grpc.loadPackageDefinition(definition).capsign.agent.v1;
const client = new SigningService(`unix:${socket}`, grpc.credentials.createInsecure());

const call = (method, request) =>
  new Promise((resolve, reject) => {
    const deadline = Date.now() + 15_000;
    client[method](request, { deadline }, (error, response) => (error ? reject(error) : resolve(response)));
  });

// RFC 9562 section 5.7: 48 bits of milliseconds, version 7, variant 10.
function newIntentId() {
  const id = randomBytes(16);
  id.writeUIntBE(Date.now(), 0, 6);
  id[6] = (id[6] & 0x0f) | 0x70;
  id[8] = (id[8] & 0x3f) | 0x80;
  return id;
}

function signOverStream(request) {
  return new Promise((resolve, reject) => {
    const stream = client.SignStream({ deadline: Date.now() + 15_000 });
    stream.on("data", (response) => {
      stream.end();
      resolve(response);
    });
    stream.on("error", reject);
    stream.write(request);
  });
}

// The trailer is a google.rpc.Status; the reason is text inside its ErrorInfo, so a generic client can at least find it.
function reasonOf(error) {
  const [details] = error.metadata.get("grpc-status-details-bin");
  const found = details && /ErrorInfo[^A-Z]*([A-Z][A-Z_]+)/.exec(details.toString("latin1"));
  return found ? found[1] : null;
}

const { handles } = await call("ListHandles", {});
const handle = handles.find((candidate) => candidate.purpose === purpose);
if (!handle) throw new Error(`no handle with purpose ${purpose} among ${handles.map((h) => h.purpose)}`);

const input = digestHex ? { digest: Buffer.from(digestHex, "hex") } : { message: Buffer.from(message) };
// The first context that the handle allows, said in full: what is pinned may be left out, but need not be.
const [rule] = handle.context_rule.protocols;
const context = { protocol: rule.protocol, role: rule.roles[0], protocol_version: rule.versions[0] };
const item = { intent_id: newIntentId(), ...input };
const group = { handle_id: handle.id, purpose, algorithm, context, items: [item] };

const streamed = await signOverStream({ call_id: 1, groups: [group], timeout_ms: 10_000 });
const first = streamed.groups[0].items[0];
if (first.failure) throw new Error(JSON.stringify(first.failure));
// During a rollout there are two, each under a key version of its own: `key` says which of the group's `signed_by` made it.
const [{ value: signature, key }] = first.signatures;
const again = await call("Sign", { handle_id: handle.id, purpose, algorithm, context, item });

const check = { handle_id: handle.id, algorithm, context, ...input, signature };
const verified = await call("Verify", check);
const changed = Buffer.from(signature);
changed[changed.length - 1] ^= 1;
const refusal = await call("Verify", { ...check, signature: changed }).then(
  () => null,
  (error) => ({ code: error.code, reason: reasonOf(error) }),
);
const resolved = await call("ResolveIntent", { handle_id: handle.id, intent_id: item.intent_id });

console.log(
  JSON.stringify({
    handles: handles.map(({ grant, purpose: of, algorithms }) => ({ grant, purpose: of, algorithms })),
    signature: signature.toString("hex"),
    same_bytes: again.signed.items[0].signatures[0].value.equals(signature),
    kid: streamed.groups[0].signed_by[key].kid,
    verified_kid: verified.key.kid,
    spki: verified.key.spki.toString("hex"),
    refusal,
    resolution: resolved.resolution,
    resolved_same: resolved.done ? resolved.done.items[0].signatures[0].value.equals(signature) : false,
  }),
);
client.close();
