"""The web page: what `unibrivl serve` opens, for people who would rather look than read.

Everything but `page`, its tabs and their `fields` works without Gradio, and is plain functions and classes that tests
call: `limits` (what is taken), `hearing`, `drawing` and `changing` (what the model does), `picturing` and `folder`
(pictures that are sent, and pictures to find), `finding` (files of an index, made ready to be shown), `studio`,
`workshop`, `salon`, `archive` and `witness` (a press of a button, from sounds to what is shown), `answers` and
`markup` with `markup_found` and `markup_evidence` (what is shown, as HTML), `uploads` (files that come and go),
`guard` (what the server refuses).
"""
