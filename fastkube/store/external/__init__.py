"""The store on an etcd cluster that is there already. DESIGN.md of the store says what is kept where, and why."""
