package dev.fastkube;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.kubernetes.client.custom.V1Patch;
import io.kubernetes.client.informer.ResourceEventHandler;
import io.kubernetes.client.informer.SharedInformerFactory;
import io.kubernetes.client.openapi.ApiClient;
import io.kubernetes.client.openapi.ApiException;
import io.kubernetes.client.openapi.apis.CoreV1Api;
import io.kubernetes.client.openapi.models.V1ConfigMap;
import io.kubernetes.client.openapi.models.V1ConfigMapList;
import io.kubernetes.client.openapi.models.V1Namespace;
import io.kubernetes.client.openapi.models.V1ObjectMeta;
import io.kubernetes.client.util.ClientBuilder;
import io.kubernetes.client.util.KubeConfig;
import io.kubernetes.client.util.generic.GenericKubernetesApi;
import io.kubernetes.client.util.Watch;
import java.io.FileReader;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/** The official Java client against a running fastkube; KUBECONFIG says where it is. */
class OfficialTest {
  private static ApiClient client;
  private static CoreV1Api core;
  private static String namespace;

  @BeforeAll
  static void connect() throws Exception {
    try (FileReader reader = new FileReader(System.getenv("KUBECONFIG"))) {
      client = ClientBuilder.kubeconfig(KubeConfig.loadKubeConfig(reader)).build();
    }
    client.setReadTimeout(0);
    core = new CoreV1Api(client);
    V1Namespace wanted = new V1Namespace().metadata(new V1ObjectMeta().generateName("java-"));
    namespace = core.createNamespace(wanted).execute().getMetadata().getName();
  }

  @AfterAll
  static void leave() throws ApiException {
    core.deleteNamespace(namespace).execute();
  }

  private static V1ConfigMap map(String name) {
    return new V1ConfigMap().metadata(new V1ObjectMeta().name(name).namespace(namespace)).data(Map.of("k", "v"));
  }

  @Test
  void createReadReplaceDelete() throws ApiException {
    V1ConfigMap made = core.createNamespacedConfigMap(namespace, map("a")).execute();
    assertNotNull(made.getMetadata().getUid());
    assertNotNull(made.getMetadata().getCreationTimestamp());
    V1ConfigMap read = core.readNamespacedConfigMap("a", namespace).execute();
    read.setData(Map.of("k", "w"));
    core.replaceNamespacedConfigMap("a", namespace, read).execute();
    ApiException conflict = assertThrows(ApiException.class, () -> core.replaceNamespacedConfigMap("a", namespace, made).execute());
    assertEquals(409, conflict.getCode());
    V1Patch patch = new V1Patch("{\"data\":{\"l\":\"x\"}}");
    var patched = new GenericKubernetesApi<>(V1ConfigMap.class, V1ConfigMapList.class, "", "v1", "configmaps", client)
        .patch(namespace, "a", V1Patch.PATCH_FORMAT_JSON_MERGE_PATCH, patch);
    assertEquals(Map.of("k", "w", "l", "x"), patched.getObject().getData());
    core.deleteNamespacedConfigMap("a", namespace).execute();
    ApiException gone = assertThrows(ApiException.class, () -> core.readNamespacedConfigMap("a", namespace).execute());
    assertEquals(404, gone.getCode());
    assertTrue(gone.getResponseBody().contains("NotFound"));
  }

  @Test
  void aWatchSeesEveryChangeInOrder() throws Exception {
    V1ConfigMapList list = core.listNamespacedConfigMap(namespace).execute();
    List<String> seen = new ArrayList<>();
    var call = core.listNamespacedConfigMap(namespace).watch(true).fieldSelector("metadata.name=w")
        .resourceVersion(list.getMetadata().getResourceVersion()).timeoutSeconds(30).buildCall(null);
    try (Watch<V1ConfigMap> watch = Watch.createWatch(client, call, new com.google.gson.reflect.TypeToken<Watch.Response<V1ConfigMap>>() {}.getType())) {
      core.createNamespacedConfigMap(namespace, map("w")).execute();
      core.deleteNamespacedConfigMap("w", namespace).execute();
      for (Watch.Response<V1ConfigMap> event : watch) {
        seen.add(event.type);
        if (event.type.equals("DELETED")) {
          break;
        }
      }
    }
    assertEquals(List.of("ADDED", "DELETED"), seen);
  }

  @Test
  void anInformerFollows() throws Exception {
    SharedInformerFactory factory = new SharedInformerFactory(client);
    var api = new GenericKubernetesApi<>(V1ConfigMap.class, V1ConfigMapList.class, "", "v1", "configmaps", client);
    var informer = factory.sharedIndexInformerFor(api, V1ConfigMap.class, 0, namespace);
    CountDownLatch added = new CountDownLatch(1);
    CountDownLatch deleted = new CountDownLatch(1);
    informer.addEventHandler(
        new ResourceEventHandler<>() {
          @Override
          public void onAdd(V1ConfigMap found) {
            if (found.getMetadata().getName().equals("informed")) {
              added.countDown();
            }
          }

          @Override
          public void onUpdate(V1ConfigMap old, V1ConfigMap found) {}

          @Override
          public void onDelete(V1ConfigMap found, boolean unknown) {
            deleted.countDown();
          }
        });
    factory.startAllRegisteredInformers();
    core.createNamespacedConfigMap(namespace, map("informed")).execute();
    assertTrue(added.await(30, TimeUnit.SECONDS));
    core.deleteNamespacedConfigMap("informed", namespace).execute();
    assertTrue(deleted.await(30, TimeUnit.SECONDS));
    factory.stopAllRegisteredInformers();
  }
}
