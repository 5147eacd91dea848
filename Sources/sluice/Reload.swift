// `sluice reload`: a running node reads its configuration again.

import ArgumentParser
import FoundationEssentials
import LinuxIO
import Primitives

struct Reload: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Let a running node read its configuration again.",
        discussion: """
            Asks the admin listener and waits until the node goes by the new file; a file with errors changes nothing, \
            they are printed, and the exit code is 1. With --pid, for a node without an admin listener, SIGHUP is sent \
            instead, and the node's log says what becomes of it.
            """)

    @OptionGroup var options: AdminOptions
    @Option(help: "Send SIGHUP to this process instead.") var pid: Int32?

    /// Names of backends may have to be looked up; a name server that is silent takes its time.
    private static let patience = TimeSpan.seconds(60)

    private struct Asked: Decodable {
        var ticket: Int
    }

    private struct Status: Decodable {
        struct Failure: Decodable {
            var errors: [String]
            var ticket: Int
        }
        var version: Int
        var hash: String
        var answered: Int
        var needRestart: [String]
        var lastError: Failure?
    }

    func run() throws {
        if let pid {
            do throws(SystemError) {
                guard pid > 0 else { throw SystemError.invalidAddress }
                try Signals.send(Signals.hangUp, to: pid)
            } catch {
                printError("sluice: cannot signal process \(pid): \(error.reason)")
                throw ExitCode(1)
            }
            print("SIGHUP is sent to \(pid): its log says what becomes of it")
            return
        }
        let ticket = try decoded(Asked.self, try asked(options, "POST", "/api/reload")).ticket
        let end = SystemClock.monotonic() + Self.patience
        while SystemClock.monotonic() < end {
            let body = try asked(options, "GET", "/api/config")
            let status = try decoded(Status.self, body)
            guard status.answered >= ticket else {
                Signals.pause(.milliseconds(10))
                continue
            }
            if let error = status.lastError, error.ticket >= ticket {
                for line in error.errors { printError(line) }
                printError("sluice: the configuration in force stays")
                throw ExitCode(1)
            }
            if options.json {
                print(String(decoding: body, as: UTF8.self), terminator: "")
            } else {
                print("version \(status.version) is in force, \(status.hash)")
                for key in status.needRestart { print("\(key) has changed: it counts after a restart") }
            }
            return
        }
        printError("sluice: the node has not answered within \(Self.patience): see its log")
        throw ExitCode(1)
    }
}
