// `sluice config`: what a configuration comes to, and one for all nodes.

import ArgumentParser
import Configuration
import FoundationEssentials

struct Config: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Show what a configuration comes to, and give all nodes another.",
        subcommands: [Show.self, Push.self, Rollback.self, History.self])

    struct Show: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Print every setting, its value and where that comes from.",
            discussion: """
                Defaults included; a section that does nothing unless it is there shows as none where it is not, and its \
                keys where it is. An origin is FILE:LINE:COLUMN, --set or default; secrets are masked. Keys are \
                written as --set takes them.
                """)

        @OptionGroup var options: ConfigurationOptions
        @Flag(help: "Only what is not a default.") var changed = false
        @Flag(help: "As JSON.") var json = false

        private struct Row: Encodable {
            var key: String
            var value: String
            var origin: String
        }

        func run() throws {
            let source = options.source
            let all: [Setting]
            do throws(ConfigurationErrors) {
                all = try source.settings(of: try source.read())
            } catch {
                printError(error.description)
                throw ExitCode(1)
            }
            let rows = all.filter { !changed || $0.origin != .standard }.map {
                Row(key: $0.key, value: $0.value, origin: $0.origin.description)
            }
            guard json else {
                print(table([["KEY", "VALUE", "ORIGIN"]] + rows.map { [$0.key, $0.value, $0.origin] }))
                return
            }
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes, .prettyPrinted]
            print(String(decoding: try encoder.encode(rows), as: UTF8.self))
        }
    }
}
