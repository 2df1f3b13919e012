package clients

import (
	"context"
	"os"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

// The etcd v3 API beside the control plane: etcd's own client and its concurrency package.
func etcdClient(t *testing.T) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{os.Getenv("ETCD_ENDPOINT")}, DialTimeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func etcdSession(t *testing.T, client *clientv3.Client) *concurrency.Session {
	t.Helper()
	session, err := concurrency.NewSession(client, concurrency.WithTTL(10))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { session.Close() })
	return session
}

func TestEtcdMutexIsHeldByOne(t *testing.T) {
	client, ctx := etcdClient(t), context.Background()
	held, most, total := 0, 0, 0
	var group sync.WaitGroup
	for range 8 {
		mutex := concurrency.NewMutex(etcdSession(t, client), "go/mutex")
		group.Add(1)
		go func() {
			defer group.Done()
			for range 5 {
				if err := mutex.Lock(ctx); err != nil {
					t.Error(err)
					return
				}
				held++
				most, total = max(most, held), total+1
				held--
				if err := mutex.Unlock(ctx); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	group.Wait()
	if most != 1 || total != 40 {
		t.Errorf("held by %d at once, %d times", most, total)
	}
}

func TestEtcdElectionChangesLeaders(t *testing.T) {
	client := etcdClient(t)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	first := concurrency.NewElection(etcdSession(t, client), "go/election")
	second := concurrency.NewElection(etcdSession(t, client), "go/election")
	observed := second.Observe(ctx)
	if err := first.Campaign(ctx, "one"); err != nil {
		t.Fatal(err)
	}
	if told := <-observed; string(told.Kvs[0].Value) != "one" {
		t.Errorf("the leader is %s", told.Kvs[0].Value)
	}
	won := make(chan error, 1)
	go func() { won <- second.Campaign(ctx, "two") }()
	if err := first.Resign(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-won; err != nil {
		t.Fatal(err)
	}
	if told := <-observed; string(told.Kvs[0].Value) != "two" {
		t.Errorf("the leader is %s", told.Kvs[0].Value)
	}
}

func TestEtcdSoftwareTransactionsLoseNothing(t *testing.T) {
	client := etcdClient(t)
	var group sync.WaitGroup
	for range 6 {
		group.Add(1)
		go func() {
			defer group.Done()
			for range 10 {
				_, err := concurrency.NewSTM(client, func(stm concurrency.STM) error {
					stm.Put("go/count", stm.Get("go/count")+"x")
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		}()
	}
	group.Wait()
	found, err := client.Get(context.Background(), "go/count")
	if err != nil || len(found.Kvs[0].Value) != 60 || found.Kvs[0].Version != 60 {
		t.Errorf("%v, %v", found, err)
	}
}

func TestEtcdWatchGoesOnWhereItWas(t *testing.T) {
	client := etcdClient(t)
	ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(context.Background()), 30*time.Second)
	defer cancel()
	before, err := client.Put(ctx, "go/watch/0", "0")
	if err != nil {
		t.Fatal(err)
	}
	lease, err := client.Grant(ctx, 2)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Put(ctx, "go/watch/1", "1", clientv3.WithLease(lease.ID)); err != nil {
		t.Fatal(err)
	}
	watch := client.Watch(ctx, "go/watch/", clientv3.WithPrefix(), clientv3.WithRev(before.Header.Revision), clientv3.WithPrevKV())
	if err := client.RequestProgress(ctx); err != nil {
		t.Fatal(err)
	}
	var told []string
	progressed := false
	for answer := range watch {
		if answer.IsProgressNotify() {
			progressed = true
		}
		for _, event := range answer.Events {
			told = append(told, event.Type.String()+string(event.Kv.Key))
		}
		if len(told) == 3 && progressed {
			break
		}
	}
	if want := "DELETEgo/watch/1"; len(told) != 3 || told[2] != want {
		t.Errorf("told %v", told)
	}
}
