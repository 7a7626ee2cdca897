//! Dumps to upload.

/// A dump as `pg_dump` writes it: table `orders` of `rows` rows, each with the text `note`.
pub fn dump(rows: usize, note: &str) -> Vec<u8> {
    let data: String = (1..=rows).map(|id| format!("{id}\t{note}\n")).collect();
    format!(
        "--\n-- PostgreSQL database dump\n--\n\nSET client_encoding = 'UTF8';\nSET standard_conforming_strings = on;\n\
         CREATE TABLE public.orders (\n    id integer NOT NULL,\n    note text\n);\n\n\
         COPY public.orders (id, note) FROM stdin;\n{data}\\.\n\n\n\
         ALTER TABLE ONLY public.orders ADD CONSTRAINT orders_pkey PRIMARY KEY (id);\n\n\
         --\n-- PostgreSQL database dump complete\n--\n\n"
    )
    .into_bytes()
}
