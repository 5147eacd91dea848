/// What this binary is.
package enum Build {
    /// By semantic versioning.
    package static let version = "0.1.0"
}
