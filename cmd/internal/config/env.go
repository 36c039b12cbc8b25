package config

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

const (
	envPrefix = "HERMOD_"
	// shardEnvPrefix is followed by a shard's number and the key, like
	// HERMOD_STORAGE_SHARD_3_DSN.
	shardEnvPrefix = "HERMOD_STORAGE_SHARD_"
)

// setting is one key of the configuration, as reflection finds it.
type setting struct {
	key    string // section.key
	help   string
	secret bool // a DSN: its password is not shown
	value  reflect.Value
}

// env is the setting's name in the environment.
func (s setting) env() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(s.key, ".", "_"))
}

// settings lists every key of cfg but those of shards, in the order of the
// file; the values point into cfg.
func settings(cfg *Config) []setting {
	var out []setting
	root := reflect.ValueOf(cfg).Elem()
	for i := range root.NumField() {
		out = append(out, fields(root.Field(i), root.Type().Field(i).Tag.Get("toml"))...)
	}
	return out
}

// shardSettings lists the keys of one shard.
func shardSettings(sc *ShardConfig) []setting {
	return fields(reflect.ValueOf(sc).Elem(), "shard")
}

func fields(section reflect.Value, name string) []setting {
	var out []setting
	for j := range section.NumField() {
		f := section.Type().Field(j)
		if f.Type == reflect.TypeFor[[]ShardConfig]() {
			continue
		}
		out = append(out, setting{
			key:    name + "." + f.Tag.Get("toml"),
			help:   f.Tag.Get("help"),
			secret: f.Tag.Get("secret") != "",
			value:  section.Field(j),
		})
	}
	return out
}

// applyEnv overrides cfg from HERMOD_SECTION_KEY variables. One that names no
// key is an error, like an unknown key of the file.
func applyEnv(cfg *Config, environ []string) error {
	all := settings(cfg)
	var errs []error
	for _, kv := range environ {
		name, text, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, envPrefix) {
			continue
		}
		i := slices.IndexFunc(all, func(s setting) bool { return s.env() == name })
		var to reflect.Value
		if i >= 0 {
			to = all[i].value
		} else {
			to = shardFromEnv(cfg, name)
		}
		if !to.IsValid() {
			errs = append(errs, fmt.Errorf("environment: %s names no setting; «hermod check --defaults» prints all keys", name))
			continue
		}
		if err := setText(to, text); err != nil {
			errs = append(errs, fmt.Errorf("environment: %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// shardFromEnv returns the value that HERMOD_STORAGE_SHARD_<id>_<KEY> names,
// zero if that names none. A shard that the file does not have is added.
func shardFromEnv(cfg *Config, name string) (none reflect.Value) {
	rest, ok := strings.CutPrefix(name, shardEnvPrefix)
	if !ok {
		return none
	}
	number, key, _ := strings.Cut(rest, "_")
	id, err := strconv.Atoi(number)
	if err != nil || strconv.Itoa(id) != number || key == "ID" {
		return none
	}
	known := func(s setting) bool { return strings.ToUpper(strings.TrimPrefix(s.key, "shard.")) == key }
	if !slices.ContainsFunc(shardSettings(new(ShardConfig)), known) {
		return none
	}
	at := slices.IndexFunc(cfg.Storage.Shards, func(sc ShardConfig) bool { return sc.ID == id })
	if at < 0 {
		at = len(cfg.Storage.Shards)
		cfg.Storage.Shards = append(cfg.Storage.Shards, ShardConfig{ID: id})
	}
	of := shardSettings(&cfg.Storage.Shards[at])
	return of[slices.IndexFunc(of, known)].value
}

// setText parses text into v by v's type; lists are separated by commas.
func setText(v reflect.Value, text string) error {
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return u.UnmarshalText([]byte(text))
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", text)
		}
		v.SetBool(b)
	case reflect.Int:
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			return fmt.Errorf("%q is no whole number", text)
		}
		v.SetInt(n)
	case reflect.Uint32:
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return fmt.Errorf("%q is no whole number from 0", text)
		}
		v.SetUint(n)
	case reflect.Slice:
		list := strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })
		v.Set(reflect.ValueOf(list))
	default:
		return fmt.Errorf("a %s cannot be set from the environment", v.Kind())
	}
	return nil
}
