// The official JavaScript client against a running fastkube; KUBECONFIG says where it is.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import * as k8s from '@kubernetes/client-node';

const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);
const apps = config.makeApiClient(k8s.AppsV1Api);
let namespace;

before(async () => {
  const made = await core.createNamespace({ body: { metadata: { generateName: 'js-' } } });
  namespace = made.metadata.name;
});

after(async () => {
  await core.deleteNamespace({ name: namespace });
});

async function eventually(what, holds) {
  for (let tries = 0; tries < 300; tries++) {
    if (await holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  assert.fail(`${what}: not within 30 seconds`);
}

test('create, read, replace, delete', async () => {
  const name = 'a';
  const made = await core.createNamespacedConfigMap({ namespace, body: { metadata: { name }, data: { k: 'v' } } });
  assert.ok(made.metadata.uid);
  assert.ok(made.metadata.creationTimestamp instanceof Date);
  const read = await core.readNamespacedConfigMap({ name, namespace });
  assert.deepEqual(read.data, { k: 'v' });
  read.data.k = 'w';
  await core.replaceNamespacedConfigMap({ name, namespace, body: read });
  await assert.rejects(core.replaceNamespacedConfigMap({ name, namespace, body: made }), (error) => error.code === 409);
  await core.deleteNamespacedConfigMap({ name, namespace });
  await assert.rejects(core.readNamespacedConfigMap({ name, namespace }), (error) => error.code === 404);
});

test('patches of every kind', async () => {
  const name = 'p';
  await core.createNamespacedConfigMap({ namespace, body: { metadata: { name }, data: { a: '1' } } });
  const patch = (body, strategy) =>
    core.patchNamespacedConfigMap({ name, namespace, body, fieldManager: 'js', force: strategy === k8s.PatchStrategy.ServerSideApply ? true : undefined }, k8s.setHeaderOptions('Content-Type', strategy));
  await patch([{ op: 'add', path: '/data/b', value: '2' }], k8s.PatchStrategy.JsonPatch);
  await patch({ data: { a: null } }, k8s.PatchStrategy.MergePatch);
  await patch({ data: { c: '3' } }, k8s.PatchStrategy.StrategicMergePatch);
  const applied = await patch({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name }, data: { d: '4' } }, k8s.PatchStrategy.ServerSideApply);
  assert.deepEqual(applied.data, { b: '2', c: '3', d: '4' });
});

test('errors tell what is wrong', async () => {
  const body = { metadata: { name: 'bad' }, spec: { containers: [{ name: 'c', image: 'i' }], restartPolicy: 'Sometimes' } };
  await assert.rejects(core.createNamespacedPod({ namespace, body }), (error) => {
    assert.equal(error.code, 422);
    assert.match(error.body, /spec.restartPolicy/);
    return true;
  });
});

test('a list in pages', async () => {
  for (let number = 0; number < 7; number++) {
    await core.createNamespacedSecret({ namespace, body: { metadata: { name: `s${number}`, labels: { page: 'me' } } } });
  }
  const names = [];
  let _continue;
  do {
    const page = await core.listNamespacedSecret({ namespace, labelSelector: 'page=me', limit: 3, _continue });
    names.push(...page.items.map((item) => item.metadata.name));
    _continue = page.metadata._continue;
  } while (_continue);
  assert.deepEqual(names, ['s0', 's1', 's2', 's3', 's4', 's5', 's6']);
});

test('a watch sees every change in order', async () => {
  const path = `/api/v1/namespaces/${namespace}/configmaps`;
  const list = await core.listNamespacedConfigMap({ namespace });
  const seen = [];
  const watching = await new k8s.Watch(config).watch(
    path,
    { resourceVersion: list.metadata.resourceVersion, fieldSelector: 'metadata.name=w' },
    (type) => seen.push(type),
    () => {},
  );
  await core.createNamespacedConfigMap({ namespace, body: { metadata: { name: 'w' } } });
  await core.deleteNamespacedConfigMap({ name: 'w', namespace });
  await eventually('both events', () => seen.length === 2);
  watching.abort();
  assert.deepEqual(seen, ['ADDED', 'DELETED']);
});

test('an informer follows', async () => {
  const list = () => core.listNamespacedPod({ namespace, labelSelector: 'app=informed' });
  const informer = k8s.makeInformer(config, `/api/v1/namespaces/${namespace}/pods`, list, 'app=informed');
  const phases = new Set();
  for (const verb of ['add', 'update']) informer.on(verb, (pod) => phases.add(pod.status?.phase));
  informer.on('error', () => {});
  await informer.start();
  const body = { metadata: { name: 'i', labels: { app: 'informed' } }, spec: { containers: [{ name: 'c', image: 'nginx' }] } };
  await core.createNamespacedPod({ namespace, body });
  await eventually('the Pod runs', () => phases.has('Running'));
  await informer.stop();
});

test('a Deployment runs, and its containers answer', async () => {
  const labels = { app: 'web' };
  const template = { metadata: { labels }, spec: { containers: [{ name: 'c', image: 'nginx' }] } };
  await apps.createNamespacedDeployment({ namespace, body: { metadata: { name: 'web' }, spec: { replicas: 2, selector: { matchLabels: labels }, template } } });
  await eventually('two Pods are ready', async () => (await apps.readNamespacedDeployment({ name: 'web', namespace })).status.readyReplicas === 2);
  const [pod] = (await core.listNamespacedPod({ namespace, labelSelector: 'app=web' })).items;
  const log = await core.readNamespacedPodLog({ name: pod.metadata.name, namespace });
  assert.match(log, /has started/);
  const { PassThrough } = await import('node:stream');
  const output = new PassThrough();
  let text = '';
  output.on('data', (data) => (text += data));
  const status = await new Promise((resolve, reject) => {
    new k8s.Exec(config).exec(namespace, pod.metadata.name, 'c', ['echo', 'hello'], output, null, null, false, resolve).catch(reject);
  });
  assert.equal(status.status, 'Success');
  assert.equal(text, 'hello\n');
});

test('objects of any kind', async () => {
  const objects = k8s.KubernetesObjectApi.makeApiClient(config);
  const spec = { apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy', metadata: { name: 'n', namespace }, spec: { podSelector: {} } };
  const made = await objects.create(spec);
  assert.deepEqual(made.spec.policyTypes, ['Ingress']);
  await objects.delete(spec);
});
