// Where the lines of all workers go: a queue of bounded length, and a thread that may wait for a slow disk or pipe, and
// that nobody waits for.

package import LinuxIO
package import Primitives
import Synchronization

/// What was lost of a log, over all files that it has had.
package final class LogLosses: Sendable {
    private let lineCount = Atomic<Int>(0)
    private let errorCount = Atomic<Int>(0)

    package init() {}

    /// Lines that nobody can read any more.
    package var lines: Int { lineCount.load(ordering: .relaxed) }
    /// Writes that failed.
    package var errors: Int { errorCount.load(ordering: .relaxed) }

    func lost(_ count: Int) { lineCount.wrappingAdd(count, ordering: .relaxed) }
    func failed() { errorCount.wrappingAdd(1, ordering: .relaxed) }
}

/// Takes lines from all workers and writes them in order of arrival.
package final class LogSink: Sendable {
    /// Hears what operators should know of.
    package typealias Listener = @Sendable (_ message: String, _ details: [String: String]) -> Void

    private struct State {
        var chunks: [(bytes: [UInt8], count: Int)] = []
        var bytes = 0
        var closing = false
        var reopening = false
        var listener: Listener?
        /// Lines that found no room since the last look of the thread's, and whether that has been told.
        var refused = 0
        var isOverrun = false
        /// Who wants to know when everything that was there is written.
        var flushing: [Waiter] = []
    }

    /// The thread's own.
    private struct Output: ~Copyable {
        var file: Descriptor
        /// Which file it is, where it has a name.
        var stamp: FileStamp?
        var lookAt = MonotonicTime(nanoseconds: .min)
        /// Whether the last line in the file ends somewhere in its midst.
        var isCut = false
        var isFailing = false
        var lostBefore = 0
        /// Whether the file of that name is another one, and cannot be opened.
        var isAstray = false
        /// Lines that found no room since it was told that there are some.
        var refused = 0
    }

    private let state = Mutex(State())
    private let arrived = Waiter()
    private let ended = Waiter()
    private let output: Mutex<Output>
    /// Where to open it again; `nil` where that means nothing.
    private let path: String?
    /// What it is to operators.
    private let name: String
    private let losses: LogLosses
    private let bytesMax: Int
    private let closeTime: TimeSpan
    private let thread = Mutex<OSThread?>(nil)

    /// How often the thread looks whether the file is still the one of that name.
    private static let lookInterval = TimeSpan.seconds(1)

    /// - Parameters:
    ///   - path: the name of `file`.
    ///   - bytesMax: how much may wait to be written.
    ///   - closeTime: how long `close` waits for a file that takes nothing: nobody may keep a node from ending.
    package init(
        _ file: consuming Descriptor, path: String? = nil, name: String = "the access log",
        thread threadName: String = "access-log", losses: LogLosses = LogLosses(),
        bytesMax: Int = DataPathLimits.logBytesMax, closeTime: TimeSpan = DataPathLimits.logCloseTime
    ) {
        self.path = path
        self.name = name
        self.losses = losses
        self.bytesMax = bytesMax
        self.closeTime = closeTime
        output = Mutex(Output(file: file, stamp: path.flatMap { FileStamp.identity(of: $0) }))
        let thread = OSThread(name: threadName) { [self] in
            while writeNext() {}
            ended.signal()
        }
        self.thread.withLock { $0 = thread }
    }

    package func listen(_ listener: @escaping Listener) { state.withLock { $0.listener = listener } }

    /// Never waits.
    package func write(_ lines: [UInt8], count: Int) {
        var news: Listener?
        let accepted = state.withLock { state in
            guard state.bytes + lines.count <= bytesMax, !state.closing else {
                state.refused += count
                if !state.isOverrun, !state.closing {
                    state.isOverrun = true
                    news = state.listener
                }
                return false
            }
            state.bytes += lines.count
            state.chunks.append((lines, count))
            return true
        }
        if accepted { return arrived.signal() }
        losses.lost(count)
        news?("\(name) is written too slowly, and lines of it are lost", [:])
    }

    /// Bytes that wait to be written.
    package var waiting: Int { state.withLock { $0.bytes } }

    /// Opens the file anew, by its name: what it was has another one by now.
    package func reopen() {
        state.withLock { $0.reopening = true }
        arrived.signal()
    }

    /// Waits until what is there now is written, at most so long.
    @discardableResult
    package func flush(atMost span: TimeSpan) -> Bool {
        let done = Waiter()
        state.withLock { $0.flushing.append(done) }
        arrived.signal()
        return done.wait(atMost: span)
    }

    /// Writes what is left and ends.
    package func close() {
        state.withLock { $0.closing = true }
        arrived.signal()
        thread.withLock { thread in
            // Who waits for a pipe that nobody reads is left behind, and ends with the process.
            if ended.wait(atMost: closeTime) { thread?.join() }
            thread = nil
        }
    }

    // MARK: The thread

    private func writeNext() -> Bool {
        arrived.wait()
        let (now, refused) = state.withLock { state in
            let now = state
            state.chunks.removeAll()
            state.bytes = 0
            state.reopening = false
            state.refused = 0
            state.flushing.removeAll()
            return (now, now.refused)
        }
        output.withLock { $0.refused += refused }
        // Lines that came before belong into the old file; who renamed it reads it a little later.
        for chunk in now.chunks { write(chunk.bytes) }
        if now.isOverrun { catchUp() }
        if now.reopening { openAgain(asked: true) }
        for waiter in now.flushing { waiter.signal() }
        return !now.closing
    }

    /// Lines were refused; where none were while the last were written, whoever reads it is back.
    private func catchUp() {
        let isOver = state.withLock { state in
            guard state.refused == 0 else { return false }
            state.isOverrun = false
            return true
        }
        guard isOver else { return }
        let lost = output.withLock { output in
            defer { output.refused = 0 }
            return output.refused
        }
        tell("\(name) keeps up again", ["lost": "\(lost)"])
    }

    private func write(_ bytes: [UInt8]) {
        lookAtName()
        output.withLock { output in
            var failure: SystemError?
            var written = 0
            if output.isCut {
                (written, failure) = OutputFile.writePrefix(output.file, [UInt8(ascii: "\n")].span)
                output.isCut = written == 0
            }
            if failure == nil {
                (written, failure) = OutputFile.writePrefix(output.file, bytes.span)
            } else {
                written = 0
            }
            guard let failure else {
                if output.isFailing { recovered(&output) }
                return
            }
            if written > 0 { output.isCut = bytes[written - 1] != UInt8(ascii: "\n") }
            let lost = bytes[written...].count { $0 == UInt8(ascii: "\n") }
            losses.failed()
            if !output.isFailing {
                output.isFailing = true
                output.lostBefore = losses.lines
                tell("\(name) cannot be written, and lines of it are lost", ["reason": failure.reason])
            }
            losses.lost(lost)
        }
    }

    private func recovered(_ output: inout Output) {
        output.isFailing = false
        tell("\(name) is written again", ["lost": "\(losses.lines - output.lostBefore)"])
    }

    /// Whoever renames or removes the file gets another one under the name, told or not.
    private func lookAtName() {
        guard let path else { return }
        let isOther = output.withLock { output in
            let now = SystemClock.monotonic()
            guard now >= output.lookAt else { return false }
            output.lookAt = now + Self.lookInterval
            return FileStamp.identity(of: path) != output.stamp
        }
        if isOther { openAgain(asked: false) }
    }

    private func openAgain(asked: Bool) {
        guard let path else { return }
        do throws(SystemError) {
            let file = try OutputFile.append(path: path)
            var opened = Optional(Output(file: file, stamp: FileStamp.identity(of: path)))
            let wasAstray = output.withLock { output in
                guard var next = opened.take() else { return false }
                let wasAstray = output.isAstray
                next.lookAt = SystemClock.monotonic() + Self.lookInterval
                (next.isFailing, next.lostBefore) = (output.isFailing, output.lostBefore)
                next.refused = output.refused
                output = next
                return wasAstray
            }
            if asked || wasAstray { tell("\(name) is opened again", ["path": path]) }
        } catch {
            losses.failed()
            let isNews = output.withLock { output in
                defer { output.isAstray = true }
                return !output.isAstray
            }
            if isNews || asked {
                tell("\(name) cannot be opened again and goes on in the old file", ["reason": error.reason])
            }
        }
    }

    private func tell(_ message: String, _ details: [String: String]) {
        state.withLock { $0.listener }?(message, details)
    }
}
