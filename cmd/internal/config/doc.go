// Package config is hermod.toml: what the server and hermodctl both read, so
// that the tool sees the shards that the server sees.
//
// Load takes the defaults, then the file, then HERMOD_SECTION_KEY variables;
// unknown keys are errors in both. Check finds everything that is wrong on this
// machine, without touching a network: hermod refuses to start with what is
// fatal and logs the rest. Explain prints every key with its meaning.
//
// Secrets stand in files (dsn_file, password_file) or, for a DSN, in the
// configuration itself; they are never printed. Whatever leaves this machine is
// encrypted unless a key called insecure says otherwise by name.
//
// OpenShards opens what [[storage.shard]] names, for whoever needs
// storage.Shards: the server, and the commands of hermodctl that work on them.
package config
