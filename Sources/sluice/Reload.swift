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

    private struct Reloaded: Decodable {
        var version: Int
        var hash: String
        var needRestart: [String]
        var errors: [String]
    }

    func run() throws {
        if let pid {
            // SIGHUP ends whoever does not wait for it.
            guard let process = ProcessGlance(pid), process.blocks(Signals.hangUp), process.arguments.contains("run")
            else {
                let what = ProcessGlance(pid).map { "is no `sluice run`: \($0.arguments.joined(separator: " "))" }
                printError("sluice: process \(pid) \(what ?? "is not there")")
                throw ExitCode(1)
            }
            do throws(SystemError) {
                try Signals.send(Signals.hangUp, to: pid)
            } catch {
                printError("sluice: cannot signal process \(pid): \(error.reason)")
                throw ExitCode(1)
            }
            print("SIGHUP is sent to \(pid): its log says what becomes of it")
            return
        }
        // Over the connection that asks: the new file may move the listener, or change its token.
        let body = try asked(options, "POST", "/api/reload?wait=true", within: Self.patience)
        let reloaded = try decoded(Reloaded.self, body)
        guard reloaded.errors.isEmpty else {
            for line in reloaded.errors { printError(line) }
            printError("sluice: the configuration in force stays")
            throw ExitCode(1)
        }
        if options.json {
            print(String(decoding: body, as: UTF8.self), terminator: "")
        } else {
            print("version \(reloaded.version) is in force, \(reloaded.hash)")
            for key in reloaded.needRestart { print("\(key) has changed: it counts after a restart") }
        }
    }
}
