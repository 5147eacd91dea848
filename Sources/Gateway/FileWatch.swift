// Notices that the configuration file is another one. It asks the file system twice a second instead of using inotify(7):
// a file that is replaced by renaming, a link that is turned over as Kubernetes does, and a file on a network's file
// system all show in the same way.

import EventLoop
import LinuxIO
import Primitives

final class FileWatch {
    private let path: String
    private let changed: () -> Void
    private var timer: LoopTimer!
    private var known: FileStamp?
    /// Seen once: it counts when it is still the same at the next look, so that nothing half-written is read.
    private var candidate: FileStamp?

    private static let interval = TimeSpan.milliseconds(500)

    init(_ path: String, loop: Loop, changed: @escaping () -> Void) {
        self.path = path
        self.changed = changed
        known = FileStamp.of(path)
        timer = LoopTimer(loop) { [weak self] in self?.look() }
        timer.schedule(after: Self.interval)
    }

    func close() { timer.cancel() }

    private func look() {
        timer.schedule(after: Self.interval)
        // Gone for a moment: whoever replaces it is about to.
        guard let now = FileStamp.of(path), now != known else {
            candidate = nil
            return
        }
        guard now == candidate else {
            candidate = now
            return
        }
        known = now
        candidate = nil
        changed()
    }
}
