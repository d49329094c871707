// Runs the rolegate program under test until it is stopped.
'use strict';
const fs = require('node:fs');
const http = require('node:http');
const os = require('node:os');
const path = require('node:path');
const readline = require('node:readline');
const { execFileSync, spawn } = require('node:child_process');

const READY_WITHIN = 60_000;
const ENDS_WITHIN = 30_000;

const folder = () => fs.mkdtempSync(path.join(os.tmpdir(), 'rolegate-clients-'));

// It is ready when a line of its stream `announces` is a JSON object that `ready` makes something of.
const run = async (args, cwd, announces, ready) => {
  const program = process.env.ROLEGATE_BIN;
  if (!program) throw new Error('ROLEGATE_BIN must name the rolegate program, for example target/release/rolegate');
  const child = spawn(program, args, { cwd, stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code, signal) => resolve(code ?? signal));
  });
  let said = '';
  const told = (what) => new Error(`rolegate ${args[0]} ${what}; it said:\n${said.slice(-4000)}`);
  const announced = new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(told(`was not ready within ${READY_WITHIN / 1000} s`)), READY_WITHIN).unref();
    ended.then((code) => reject(told(`ended with ${code} before it was ready`)), reject);
    for (const name of ['stdout', 'stderr']) {
      readline.createInterface({ input: child[name] }).on('line', (line) => {
        said += `${line}\n`;
        if (name !== announces || !line.startsWith('{')) return;
        const found = ready(JSON.parse(line));
        if (found === undefined) return;
        clearTimeout(late);
        resolve(found);
      });
    }
  });
  const stop = async () => {
    const late = setTimeout(() => child.kill('SIGKILL'), ENDS_WITHIN);
    child.kill('SIGTERM');
    const code = await ended;
    clearTimeout(late);
    fs.rmSync(cwd, { recursive: true, force: true });
    if (code !== 0) throw told(`ended with ${code} after SIGTERM`);
  };
  try {
    return { found: await announced, stop };
  } catch (error) {
    child.kill('SIGKILL');
    fs.rmSync(cwd, { recursive: true, force: true });
    throw error;
  }
};

// Whether the stories are told on the general path alone.
const GENERAL = process.env.ROLEGATE_PATH === 'general';

const onItsPath = (configuration) => (GENERAL ? configuration.replace('[listen]\n', '[listen]\nfast_path = false\n') : configuration);

// The sample servers behind a gate.
exports.demo = async () => {
  const cwd = folder();
  const { found, stop } = await run(['demo', '--format', 'json'], cwd, 'stdout', (line) => (line.ready ? line : undefined));
  const { rocketchat, 'docusign-rooms': docusign } = found.ready;
  if (!GENERAL) return { rocketchat, audit: path.resolve(cwd, found.audit), stop };
  // In the place of the demo's own gate one that knows the general path alone.
  const template = fs.readFileSync(path.join(__dirname, '../gates/general.toml'), 'utf8');
  const configuration = template.replaceAll('{rocketchat}', rocketchat.sample).replaceAll('{docusign-rooms}', docusign.sample);
  const gate = await exports.gate(configuration);
  const both = async () => gate.stop().finally(stop);
  return { rocketchat: { ...rocketchat, gate: `http://127.0.0.1:${gate.port}` }, audit: gate.audit, stop: both };
};

// `rolegate run` with this configuration; `policies`, by their paths, replace files of the built-in ones or stand beside them.
exports.gate = async (configuration, policies = {}) => {
  const cwd = folder();
  execFileSync(process.env.ROLEGATE_BIN, ['init', '.'], { cwd, stdio: 'ignore' });
  for (const [name, text] of Object.entries(policies)) fs.writeFileSync(path.join(cwd, 'policies', name), text);
  fs.writeFileSync(path.join(cwd, 'rolegate.toml'), onItsPath(configuration));
  const { found, stop } = await run(['run', '--config', 'rolegate.toml'], cwd, 'stderr', (line) => line.listening);
  return { port: Number(found.split(':').at(-1)), audit: path.join(cwd, 'audit/audit.jsonl'), stop };
};

const listen = (server, host) => new Promise((resolve, reject) => server.once('error', reject).listen(0, host, () => resolve(server.address().port)));

// A server at a free port of this host; `answer` is given the request, its body and the response.
const serve = async (host, answer) => {
  const server = http.createServer((request, response) => {
    const chunks = [];
    request.on('data', (chunk) => chunks.push(chunk)).on('end', () => answer(request, Buffer.concat(chunks), response));
  });
  const port = await listen(server, host);
  const stop = () => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  };
  return { port, stop };
};

exports.serve = serve;

// A server that logs anybody in and answers everything else with 500.
exports.failingServer = () =>
  serve('127.0.0.1', (request, asked, response) => {
    const login = request.method === 'POST';
    const content = login
      ? { status: 'success', data: { userId: 'somebodyXPnMktTFb', authToken: 'some-token' } }
      : { success: false, error: 'the database is away' };
    response.writeHead(login ? 200 : 500, { 'content-type': 'application/json' }).end(JSON.stringify(content));
  });

// Stands between a client and the gate at this port, and keeps what rolegate sent before the client has it. A client that
// calls the relay by this name reaches it: `localhost` is one address or another.
exports.relay = async (name, gate) => {
  const answers = [];
  const server = await serve(name, (request, asked, response) => {
    const { method, url, headers } = request;
    const onwards = http.request({ host: '127.0.0.1', port: gate, method, path: url, headers, agent: false }, (told) => {
      const chunks = [];
      told.on('data', (chunk) => chunks.push(chunk)).on('end', () => {
        const body = Buffer.concat(chunks);
        answers.push({ status: told.statusCode, headers: told.headers, body: body.toString() });
        const { 'transfer-encoding': _, connection: __, ...kept } = told.headers;
        response.writeHead(told.statusCode, told.statusMessage, { ...kept, 'content-length': body.length }).end(body);
      });
    });
    onwards.on('error', (error) => response.destroy(error)).end(asked);
  });
  return { ...server, url: `http://${name}:${server.port}`, answers };
};
