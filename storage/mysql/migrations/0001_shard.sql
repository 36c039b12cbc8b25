-- A shard of Hermod. Ids: user_id is a positive BIGINT whose top 12 bits (after
-- the sign) are the slot, so a slot is a range of ids in every table. conv is
-- the 16-byte key of a conversation, its home's id first. Times are microseconds
-- since 1970 UTC. Bodies belong to the server's chat layer and are opaque here.

CREATE TABLE IF NOT EXISTS fence (
  id TINYINT UNSIGNED NOT NULL PRIMARY KEY,
  version BIGINT UNSIGNED NOT NULL COMMENT 'rises with every change of slots',
  ticks BIGINT UNSIGNED NOT NULL COMMENT 'rises with what wants its own place in the log: barriers, commits that change nothing'
) ENGINE=InnoDB COMMENT='id 1: share-locked by every write, so that no slot moves under it; others: see ticks';

INSERT INTO fence (id, version, ticks) VALUES (1, 1, 0) ON DUPLICATE KEY UPDATE id=VALUES(id);

CREATE TABLE IF NOT EXISTS slots (
  slot SMALLINT UNSIGNED NOT NULL PRIMARY KEY COMMENT '0 to 4095',
  state TINYINT UNSIGNED NOT NULL COMMENT '0 absent, 1 owned, 2 frozen',
  epoch BIGINT UNSIGNED NOT NULL
) ENGINE=InnoDB COMMENT='which slots this shard owns';

CREATE TABLE IF NOT EXISTS meta (
  name VARBINARY(128) NOT NULL PRIMARY KEY,
  val BLOB NOT NULL
) ENGINE=InnoDB COMMENT='named values of the shard itself';

CREATE TABLE IF NOT EXISTS leases (
  node BIGINT UNSIGNED NOT NULL PRIMARY KEY,
  incarnation BIGINT UNSIGNED NOT NULL,
  until_us BIGINT NOT NULL COMMENT 'by this database''s clock'
) ENGINE=InnoDB COMMENT='nodes alive; the tasks of others are taken over';

CREATE TABLE IF NOT EXISTS user_heads (
  user_id BIGINT NOT NULL PRIMARY KEY,
  seq BIGINT UNSIGNED NOT NULL COMMENT 'newest inbox seq',
  floor_seq BIGINT UNSIGNED NOT NULL COMMENT 'highest inbox seq that retention has deleted',
  inbox_epoch BIGINT UNSIGNED NOT NULL COMMENT 'random; a restore gives a new one',
  token_gen BIGINT UNSIGNED NOT NULL COMMENT 'rises with every revocation',
  login_epoch BIGINT UNSIGNED NOT NULL COMMENT 'rises with every first login of a device',
  epoch_1 BIGINT UNSIGNED NOT NULL COMMENT 'login_epoch of the newest device: phone',
  epoch_2 BIGINT UNSIGNED NOT NULL COMMENT 'tablet',
  epoch_3 BIGINT UNSIGNED NOT NULL COMMENT 'desktop',
  epoch_4 BIGINT UNSIGNED NOT NULL COMMENT 'web',
  epoch_5 BIGINT UNSIGNED NOT NULL COMMENT 'bot',
  epoch_6 BIGINT UNSIGNED NOT NULL COMMENT 'other'
) ENGINE=InnoDB COMMENT='one a user, made at registration, never deleted';

CREATE TABLE IF NOT EXISTS convs (
  conv BINARY(16) NOT NULL PRIMARY KEY,
  generation BIGINT UNSIGNED NULL COMMENT 'NULL: locked once, never written',
  rev BIGINT UNSIGNED NOT NULL COMMENT 'newest entry',
  conv_seq BIGINT UNSIGNED NOT NULL COMMENT 'messages counted',
  last_time_us BIGINT NOT NULL,
  member_version BIGINT UNSIGNED NOT NULL
) ENGINE=InnoDB COMMENT='heads of conversations at home here';

CREATE TABLE IF NOT EXISTS entries (
  conv BINARY(16) NOT NULL,
  rev BIGINT UNSIGNED NOT NULL,
  conv_seq BIGINT UNSIGNED NOT NULL,
  time_us BIGINT NOT NULL,
  sender BIGINT NOT NULL,
  kind SMALLINT UNSIGNED NOT NULL,
  send_id BINARY(16) NOT NULL COMMENT 'UUIDv7 of the client; zero: none',
  body MEDIUMBLOB NOT NULL,
  PRIMARY KEY (conv, rev)
) ENGINE=InnoDB COMMENT='the conversation log: history';

CREATE TABLE IF NOT EXISTS inbox (
  user_id BIGINT NOT NULL,
  seq BIGINT UNSIGNED NOT NULL,
  conv BINARY(16) NOT NULL,
  rev BIGINT UNSIGNED NOT NULL,
  conv_seq BIGINT UNSIGNED NOT NULL,
  time_us BIGINT NOT NULL,
  sender BIGINT NOT NULL,
  kind SMALLINT UNSIGNED NOT NULL,
  send_id BINARY(16) NOT NULL,
  body MEDIUMBLOB NULL COMMENT 'NULL: read it from entries at the conversation''s home',
  PRIMARY KEY (user_id, seq)
) ENGINE=InnoDB COMMENT='what a user''s devices sync';

CREATE TABLE IF NOT EXISTS user_convs (
  user_id BIGINT NOT NULL,
  conv BINARY(16) NOT NULL,
  head_rev BIGINT UNSIGNED NOT NULL COMMENT 'newest rev in the inbox',
  head BIGINT UNSIGNED NOT NULL COMMENT 'conv_seq, as all that follow',
  read_seq BIGINT UNSIGNED NOT NULL,
  own_sent BIGINT UNSIGNED NOT NULL,
  cleared BIGINT UNSIGNED NOT NULL,
  joined BIGINT UNSIGNED NOT NULL,
  delivered BIGINT UNSIGNED NOT NULL,
  head_time_us BIGINT NOT NULL,
  PRIMARY KEY (user_id, conv)
) ENGINE=InnoDB COMMENT='a user''s view of a conversation; unread is computed from it';

CREATE TABLE IF NOT EXISTS sends (
  slot SMALLINT UNSIGNED NOT NULL COMMENT 'of the conversation',
  send_id BINARY(16) NOT NULL COMMENT 'UUIDv7: its first 48 bits are milliseconds',
  conv BINARY(16) NOT NULL,
  sender BIGINT NOT NULL,
  hash BINARY(16) NOT NULL COMMENT 'of kind and body',
  rev BIGINT UNSIGNED NOT NULL,
  conv_seq BIGINT UNSIGNED NOT NULL,
  time_us BIGINT NOT NULL,
  PRIMARY KEY (slot, send_id, conv, sender)
) ENGINE=InnoDB COMMENT='what was sent, for 30 days: a retry gets the first result';

CREATE TABLE IF NOT EXISTS tasks (
  conv BINARY(16) NOT NULL,
  target INT UNSIGNED NOT NULL COMMENT 'shard',
  next_rev BIGINT UNSIGNED NOT NULL,
  to_rev BIGINT UNSIGNED NOT NULL,
  owner BIGINT UNSIGNED NOT NULL COMMENT 'node',
  incarnation BIGINT UNSIGNED NOT NULL,
  PRIMARY KEY (conv, target),
  KEY owner (owner, conv, target)
) ENGINE=InnoDB COMMENT='entries still to be delivered to another shard';

CREATE TABLE IF NOT EXISTS account_names (
  name VARBINARY(128) NOT NULL PRIMARY KEY COMMENT 'normalized, UTF-8',
  user_id BIGINT NOT NULL,
  KEY user_id (user_id)
) ENGINE=InnoDB COMMENT='a name decides the slot, so it is unique everywhere';

CREATE TABLE IF NOT EXISTS accounts (
  user_id BIGINT NOT NULL PRIMARY KEY,
  name VARBINARY(128) NOT NULL,
  created_us BIGINT NOT NULL,
  auth BLOB NOT NULL,
  profile MEDIUMBLOB NOT NULL
) ENGINE=InnoDB COMMENT='who a user is';

CREATE TABLE IF NOT EXISTS devices (
  user_id BIGINT NOT NULL,
  id BINARY(16) NOT NULL,
  slot TINYINT UNSIGNED NOT NULL COMMENT '1 phone, 2 tablet, 3 desktop, 4 web, 5 bot, 6 other',
  login_epoch BIGINT UNSIGNED NOT NULL,
  secret_hash BINARY(32) NOT NULL,
  prev_hash BINARY(32) NOT NULL,
  created_us BIGINT NOT NULL,
  last_seen_us BIGINT NOT NULL,
  acked_seq BIGINT UNSIGNED NOT NULL,
  info BLOB NOT NULL,
  PRIMARY KEY (user_id, id)
) ENGINE=InnoDB COMMENT='logged-in installations';

CREATE TABLE IF NOT EXISTS blocks (
  user_id BIGINT NOT NULL,
  peer BIGINT NOT NULL,
  time_us BIGINT NOT NULL,
  PRIMARY KEY (user_id, peer)
) ENGINE=InnoDB COMMENT='user_id does not want to hear from peer';
