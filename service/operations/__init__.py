"""Operations: what operators and schedulers need beside the tenants' own work: health, version, sweeps, jobs."""
