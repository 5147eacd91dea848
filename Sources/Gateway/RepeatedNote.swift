// What can happen thousands of times a second and has to be in the log all the same: the first time at once, what follows
// within an interval as one line at its end. Each line says how many there were.

import EventLoop
import Primitives

final class RepeatedNote {
    private let message: String
    private let details: [String: String]
    private unowned let worker: Worker
    private var count = 0
    private var shown: [String: String] = [:]
    private var timer: LoopTimer?
    /// Whether an interval runs, at whose end what has been counted is told.
    private var isWaiting = false

    /// - Parameter details: what every line says.
    init(_ message: String, _ worker: Worker, details: [String: String] = [:]) {
        self.message = message
        self.worker = worker
        self.details = details
    }

    /// It happened once more. Of those that share a line it shows the details of the first.
    func happened(_ details: @autoclosure () -> [String: String] = [:]) {
        count += 1
        if count == 1 { shown = self.details.merging(details()) { $1 } }
        if !isWaiting { tell() }
    }

    private func tell() {
        isWaiting = count > 0
        guard isWaiting else { return }
        shown["count"] = "\(count)"
        worker.control.post(.note(message, shown))
        count = 0
        let timer = timer ?? LoopTimer(worker.loop) { [weak self] in self?.tell() }
        self.timer = timer
        timer.schedule(after: DataPathLimits.noteInterval)
    }
}
