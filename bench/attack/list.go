package attack

// All are the attacks there are, by group.
func All() []Attack {
	return []Attack{
		{Name: "first-byte", Group: "limits", Claim: "who says nothing is closed after 5 s", script: attackFirstByte},
		{Name: "slow-hello", Group: "limits", Claim: "a login that is not finished is closed after 10 s, however busy it looks", script: attackSlowHello},
		{Name: "partial-frame", Group: "limits", Claim: "a frame that is begun and not finished is closed after 15 s", script: attackPartialFrame},
		{Name: "login-bytes", Group: "limits", Claim: "before the login at most 16 KiB are kept", script: attackLoginBytes},
		{Name: "frame-caps", Group: "limits", Claim: "frames over 4 KiB before the login and 64 KiB after it are refused at their header", script: attackFrameCaps},
		{Name: "nesting", Group: "limits", Claim: "frames that would unfold into more than they are get BAD_FRAME", script: attackNesting},
		{Name: "ids-per-call", Group: "limits", Claim: "200 ids a call, pages of a bounded size", script: attackIDsPerCall},
		{Name: "content", Group: "limits", Claim: "32 KiB of content", script: attackContent},
		{Name: "outbox", Group: "limits", Claim: "256 KiB wait for a client that does not read, then it is closed", Heavy: true, script: attackOutbox},
		{Name: "stall", Group: "limits", Claim: "a client that reads nothing for 30 s is closed", script: attackStall},
		{Name: "new-connections", Group: "limits", Claim: "50 new connections a second per address", script: attackNewConns},
		{Name: "live-connections", Group: "limits", Claim: "2,000 live connections per address", Heavy: true, script: attackLiveConns},
		{Name: "ipv6", Group: "limits", Claim: "a /64 of IPv6 counts as one address", script: attackIPv6},
		{Name: "exempt", Group: "limits", Claim: "nobody is exempt behind PROXY, and no stranger may speak it", script: attackExempt},
		{Name: "registrations", Group: "limits", Claim: "5 registrations a minute per address", script: attackRegistrations},
		{Name: "frames", Group: "limits", Claim: "50 frames a second, bursts of 100; ten times that closes", script: attackFrames},
		{Name: "syncs", Group: "limits", Claim: "5 syncs a second", script: attackSyncs},
		{Name: "descriptors", Group: "limits", Claim: "at 90 % of the descriptors newcomers wait, sessions go on", Heavy: true, script: attackDescriptors},
		{Name: "handshakes", Group: "limits", Claim: "1,024 TLS handshakes may be pending", Heavy: true, script: attackHandshakes},
		{Name: "silence", Group: "limits", Claim: "10,000 silent connections cost at most 4 KiB each, and keep nobody out", Heavy: true, script: attackSilence},
		{Name: "half-hellos", Group: "limits", Claim: "10,000 connections with half a Hello cost at most 32 KiB each, TLS or not", Heavy: true, script: attackHalfHellos},
		{Name: "noise", Group: "limits", Claim: "no bytes make the server panic", Heavy: true, script: attackNoise},

		{Name: "guesses", Group: "logins", Claim: "5 wrong passwords per account and address, then waits that double", script: attackGuesses},
		{Name: "hashes", Group: "logins", Claim: "hundreds who log in at once wait in a bounded queue, and those inside go on talking", Heavy: true, script: attackHashes},
		{Name: "names", Group: "logins", Claim: "who has an account is not told, nor shown by the time it takes", Heavy: true, script: attackNames},
		{Name: "secrets", Group: "logins", Claim: "a device secret cannot be guessed, and a known user is not told from an unknown one", script: attackSecrets},
		{Name: "forged-tokens", Group: "logins", Claim: "no token gets in that this server has not signed for this device", script: attackForged},
		{Name: "stolen-token", Group: "logins", Claim: "a stolen token is worth nothing alone, and nothing at all once the password was changed", script: attackStolenToken},
		{Name: "revoked", Group: "logins", Claim: "a revoked device is out within 5 s, with token and secret", script: attackRevoked},
		{Name: "reused-secret", Group: "logins", Claim: "a copied device secret is found out at its second use", script: attackReusedSecret},
		{Name: "replay", Group: "logins", Claim: "what was recorded cannot be played back", script: attackReplay},
		{Name: "downgrade", Group: "logins", Claim: "TLS 1.3 with hermod/1, nothing less", script: attackDowngrade},

		{Name: "cross-user", Group: "others", Claim: "nobody reads or changes what is somebody else's, with any request", script: attackCrossUser},
		{Name: "admin", Group: "others", Claim: "the operator's page is for the machine itself", script: attackAdmin},

		{Name: "peers", Group: "fleet", Claim: "nobody gets in as a node without its certificate and a true hello", script: attackPeers},
		{Name: "peer-silence", Group: "fleet", Claim: "silent connections to the nodes' port hurt no link that is up", script: attackPeerSilence},
		{Name: "revoked-elsewhere", Group: "fleet", Claim: "a device that is revoked on one node is out on every node within 5 s", script: attackElsewhere},
		{Name: "partition", Group: "fleet", Claim: "while nodes do not hear each other it is out within 60 s", script: attackPartition},
	}
}
