// Package lossy is a disk that loses power: a file system (FUSE) that keeps what
// was written in memory twice, as programs see it and as a disk would have it,
// and forgets the difference when told to.
//
//	fs, err := lossy.Mount(dir)
//	defer fs.Close()
//	… a server runs on dir …
//	fs.PowerCut(seed)    // from here on everything fails with EIO
//	… kill the server …
//	err = fs.PowerOn()   // dir has what was synced, and perhaps more
//	… start the server again …
//
// Killing a process with -9 is no power cut: the kernel still has everything
// that was written, synced or not. A copy of the live files is none either.
//
// # What survives
//
// What POSIX promises, and nothing that some file system adds to it:
//
//   - Content, and a file's length, survive from the fsync or fdatasync of the
//     file that follows the write.
//   - A name (created, renamed, removed) survives from the fsync of its folder
//     that follows. The fsync of a new file does not save its name, though ext4
//     does that, too. A rename is there as a whole or not at all.
//   - O_SYNC and O_DSYNC are not looked at: nobody who is tested here uses them.
//
// # What a cut leaves of the rest
//
// With seed 0, nothing. With another, some of it, as a disk may that was just
// writing: each page of 4 KiB that was not synced is old, or new, or, one in
// eight, new in its first sectors and old behind; a length is the old one or
// the new one; and of the names that were changed, the earlier part survives,
// as from a journal. The same seed makes the same choices for the same writes.
//
// # Limits
//
// Linux, and root (or a setuid fusermount): [Available] says what is missing.
// All is in memory, about twice what changed since the last sync, so it is for
// megabytes, not for gigabytes. Do not start a program whose working folder, or
// whose file, is in it from the process that serves it: between fork and exec
// nobody serves, so nobody answers.
package lossy
