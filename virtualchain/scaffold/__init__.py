"""New projects: what `virtualchain init` writes, from the files in `templates`.

`naming` decides which names and magics can be, and `project` writes the files. A template is text for
`string.Template`; its name is that of the file it becomes, or that file's job, with `.template` after it.
"""
