// Package observe reads what a server process says of itself: the samples of
// its Prometheus page, and what /proc has on it. The load tool, the torture, the
// attacks and the tests ask the same questions, and get the same answers here.
//
//	page, err := observe.Get(ctx, "http://127.0.0.1:5180")
//	open, ok := page.Sum("hermod_conn_open")
//	rss, err := observe.Resident(pid)
package observe
