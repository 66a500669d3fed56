// Package volumes gives claims a directory on the node's disk.
//
// Kubernetes has such a provisioner (--enable-hostpath-provisioner of the
// controller manager), but that one makes its directories below the host's
// /tmp, owned by root and with mode 0750, so that no pod of another user can
// write to them.
package volumes

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
)

// Provisioner is the name that a StorageClass asks for it by.
const Provisioner = "datjob.io/host-path"

// item is what there is to look at: a claim or, without a namespace, a volume.
type item struct{ namespace, name string }

type provisioner struct {
	client  kubernetes.Interface
	dir     string
	factory informers.SharedInformerFactory
	claims  corelisters.PersistentVolumeClaimLister
	volumes corelisters.PersistentVolumeLister
	classes storagelisters.StorageClassLister
	queue   workqueue.TypedRateLimitingInterface[item]
}

func newProvisioner(client kubernetes.Interface, dir string) *provisioner {
	factory := informers.NewSharedInformerFactory(client, 0)
	return &provisioner{
		client:  client,
		dir:     dir,
		factory: factory,
		claims:  factory.Core().V1().PersistentVolumeClaims().Lister(),
		volumes: factory.Core().V1().PersistentVolumes().Lister(),
		classes: factory.Storage().V1().StorageClasses().Lister(),
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[item](100*time.Millisecond, 10*time.Second)),
	}
}

func (p *provisioner) run(ctx context.Context) error {
	for _, informer := range []cache.SharedIndexInformer{
		p.factory.Core().V1().PersistentVolumeClaims().Informer(),
		p.factory.Core().V1().PersistentVolumes().Informer(),
	} {
		handler := cache.ResourceEventHandlerFuncs{
			AddFunc:    p.enqueue,
			UpdateFunc: func(_, now any) { p.enqueue(now) },
		}
		if _, err := informer.AddEventHandler(handler); err != nil {
			return fmt.Errorf("cannot watch claims and volumes: %w", err)
		}
	}
	p.factory.Start(ctx.Done())
	p.factory.WaitForCacheSync(ctx.Done())
	go func() {
		<-ctx.Done()
		p.queue.ShutDown()
	}()
	for p.next(ctx) {
	}
	return nil
}

func (p *provisioner) enqueue(object any) {
	if o, ok := object.(metav1.Object); ok {
		p.queue.Add(item{o.GetNamespace(), o.GetName()})
	}
}

func (p *provisioner) next(ctx context.Context) bool {
	it, shutdown := p.queue.Get()
	if shutdown {
		return false
	}
	defer p.queue.Done(it)
	if err := p.reconcile(ctx, it); err != nil {
		klog.ErrorS(err, "Cannot reconcile an object; retrying", "namespace", it.namespace, "name", it.name)
		p.queue.AddRateLimited(it)
		return true
	}
	p.queue.Forget(it)
	return true
}

func (p *provisioner) reconcile(ctx context.Context, it item) error {
	if it.namespace == "" {
		volume, err := p.volumes.Get(it.name)
		if apierrors.IsNotFound(err) || err == nil && !ToDelete(volume) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot read the volume: %w", err)
		}
		return p.delete(ctx, volume)
	}
	claim, err := p.claims.PersistentVolumeClaims(it.namespace).Get(it.name)
	if apierrors.IsNotFound(err) || err == nil && !ToProvision(claim) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot read the claim: %w", err)
	}
	return p.provision(ctx, claim)
}

func (p *provisioner) provision(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	class, err := p.classes.Get(*claim.Spec.StorageClassName)
	if err != nil {
		return fmt.Errorf("cannot read the storage class of the claim: %w", err)
	}
	volume := VolumeFor(claim, class, p.dir)
	path := volume.Spec.HostPath.Path
	if err := os.MkdirAll(path, 0o777); err != nil {
		return fmt.Errorf("cannot create the directory of the volume: %w", err)
	}
	// Whatever the umask is: the pods that will write to it have any user id.
	if err := os.Chmod(path, 0o777); err != nil {
		return fmt.Errorf("cannot make the directory of the volume writable for all users: %w", err)
	}
	_, err = p.client.CoreV1().PersistentVolumes().Create(ctx, volume, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("cannot create the volume: %w", err)
	}
	klog.InfoS("Provisioned a volume", "claim", klog.KObj(claim), "volume", volume.Name, "path", path)
	return nil
}

func (p *provisioner) delete(ctx context.Context, volume *corev1.PersistentVolume) error {
	if path := volume.Spec.HostPath.Path; filepath.Dir(path) == p.dir {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("cannot delete the directory of the volume: %w", err)
		}
	}
	err := p.client.CoreV1().PersistentVolumes().Delete(ctx, volume.Name, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("cannot delete the volume: %w", err)
	}
	klog.InfoS("Deleted a volume", "volume", volume.Name)
	return nil
}
