"""Any flow, whole or in chunks, to a `Result`; commands inferred from facts; what is in a flow."""
