"""What `receipted doctor` looks at: whether a provider's delivery would come through, and if not, why."""
