package dev.fastkube;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.fabric8.kubernetes.api.model.ConfigMap;
import io.fabric8.kubernetes.api.model.ConfigMapBuilder;
import io.fabric8.kubernetes.api.model.ListOptionsBuilder;
import io.fabric8.kubernetes.api.model.NamespaceBuilder;
import io.fabric8.kubernetes.api.model.Pod;
import io.fabric8.kubernetes.api.model.PodBuilder;
import io.fabric8.kubernetes.api.model.SecretBuilder;
import io.fabric8.kubernetes.api.model.SecretList;
import io.fabric8.kubernetes.api.model.apps.DeploymentBuilder;
import io.fabric8.kubernetes.client.KubernetesClient;
import io.fabric8.kubernetes.client.KubernetesClientBuilder;
import io.fabric8.kubernetes.client.KubernetesClientException;
import io.fabric8.kubernetes.client.dsl.ExecWatch;
import io.fabric8.kubernetes.client.informers.ResourceEventHandler;
import io.fabric8.kubernetes.client.informers.SharedIndexInformer;
import java.io.ByteArrayOutputStream;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/** The fabric8 client against a running fastkube; KUBECONFIG says where it is. */
class Fabric8Test {
  private static KubernetesClient client;
  private static String namespace;

  @BeforeAll
  static void connect() {
    client = new KubernetesClientBuilder().build();
    namespace = client.resource(new NamespaceBuilder().withNewMetadata().withGenerateName("fabric8-").endMetadata().build())
        .create().getMetadata().getName();
  }

  @AfterAll
  static void leave() {
    client.namespaces().withName(namespace).delete();
    client.close();
  }

  private static ConfigMap map(String name, Map<String, String> data) {
    return new ConfigMapBuilder().withNewMetadata().withName(name).withNamespace(namespace).endMetadata().withData(data).build();
  }

  @Test
  void createReadUpdateDelete() {
    ConfigMap made = client.resource(map("a", Map.of("k", "v"))).create();
    assertNotNull(made.getMetadata().getUid());
    var resource = client.configMaps().inNamespace(namespace).withName("a");
    assertEquals("v", resource.get().getData().get("k"));
    resource.edit(found -> new ConfigMapBuilder(found).addToData("l", "w").build());
    assertEquals(Map.of("k", "v", "l", "w"), resource.get().getData());
    made.setData(Map.of("k", "late"));
    var conflict = assertThrows(KubernetesClientException.class, () -> client.resource(made).lockResourceVersion(made.getMetadata().getResourceVersion()).update());
    assertEquals(409, conflict.getCode());
    resource.delete();
    assertNull(resource.get());
  }

  @Test
  void serverSideApplyHasConflicts() {
    var one = client.resource(map("applied", Map.of("k", "one")));
    one.fieldManager("one").serverSideApply();
    var two = client.resource(map("applied", Map.of("k", "two")));
    var conflict = assertThrows(KubernetesClientException.class, () -> two.fieldManager("two").serverSideApply());
    assertEquals(409, conflict.getCode());
    assertEquals("two", two.fieldManager("two").forceConflicts().serverSideApply().getData().get("k"));
  }

  @Test
  void errorsTellWhatIsWrong() {
    Pod bad = new PodBuilder().withNewMetadata().withName("bad").withNamespace(namespace).endMetadata()
        .withNewSpec().addNewContainer().withName("c").withImage("i").endContainer().withRestartPolicy("Sometimes").endSpec().build();
    var invalid = assertThrows(KubernetesClientException.class, () -> client.resource(bad).create());
    assertEquals(422, invalid.getCode());
    assertEquals("spec.restartPolicy", invalid.getStatus().getDetails().getCauses().get(0).getField());
  }

  @Test
  void listsComeInPages() {
    for (int number = 0; number < 7; number++) {
      client.resource(new SecretBuilder().withNewMetadata().withName("s" + number).withNamespace(namespace).addToLabels("page", "me").endMetadata().build()).create();
    }
    List<String> names = new ArrayList<>();
    String token = null;
    do {
      SecretList page = client.secrets().inNamespace(namespace).withLabel("page", "me")
          .list(new ListOptionsBuilder().withLimit(3L).withContinue(token).build());
      page.getItems().forEach(item -> names.add(item.getMetadata().getName()));
      token = page.getMetadata().getContinue();
    } while (token != null && !token.isEmpty());
    assertEquals(List.of("s0", "s1", "s2", "s3", "s4", "s5", "s6"), names);
  }

  @Test
  void anInformerFollows() throws InterruptedException {
    CountDownLatch added = new CountDownLatch(1);
    CountDownLatch deleted = new CountDownLatch(1);
    try (SharedIndexInformer<ConfigMap> informer = client.configMaps().inNamespace(namespace).withLabel("informed", "yes").inform(
        new ResourceEventHandler<>() {
          @Override
          public void onAdd(ConfigMap found) {
            added.countDown();
          }

          @Override
          public void onUpdate(ConfigMap old, ConfigMap found) {}

          @Override
          public void onDelete(ConfigMap found, boolean unknown) {
            deleted.countDown();
          }
        })) {
      ConfigMap informed = map("informed", Map.of());
      informed.getMetadata().setLabels(Map.of("informed", "yes"));
      client.resource(informed).create();
      assertTrue(added.await(30, TimeUnit.SECONDS));
      client.resource(informed).delete();
      assertTrue(deleted.await(30, TimeUnit.SECONDS));
    }
  }

  @Test
  void aDeploymentRunsAndItsContainersAnswer() throws Exception {
    client.resource(new DeploymentBuilder().withNewMetadata().withName("web").withNamespace(namespace).endMetadata()
        .withNewSpec().withReplicas(2).withNewSelector().addToMatchLabels("app", "web").endSelector()
        .withNewTemplate().withNewMetadata().addToLabels("app", "web").endMetadata()
        .withNewSpec().addNewContainer().withName("c").withImage("nginx").endContainer().endSpec().endTemplate().endSpec().build()).create();
    var deployment = client.apps().deployments().inNamespace(namespace).withName("web");
    deployment.waitUntilReady(30, TimeUnit.SECONDS);
    deployment.scale(3);
    deployment.waitUntilCondition(found -> Integer.valueOf(3).equals(found.getStatus().getReadyReplicas()), 30, TimeUnit.SECONDS);
    var pods = client.pods().inNamespace(namespace).withLabel("app", "web").list().getItems();
    assertEquals(3, pods.size());
    var pod = client.pods().inNamespace(namespace).withName(pods.get(0).getMetadata().getName());
    assertTrue(pod.getLog().contains("has started"));
    ByteArrayOutputStream output = new ByteArrayOutputStream();
    try (ExecWatch exec = pod.writingOutput(output).exec("echo", "hello")) {
      assertEquals(0, exec.exitCode().get(30, TimeUnit.SECONDS));
    }
    assertEquals("hello\n", output.toString());
    assertFalse(pods.get(0).getStatus().getPodIP().isEmpty());
  }
}
